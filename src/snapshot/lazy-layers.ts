import type { Digest } from '../core/digest.ts';
import { ShoalError } from '../errors.ts';
import type { Labels, Usage } from './snapshot-info.ts';

/** A layer that containerd is about to unpack, and that might not have to be. */
export interface LayerOffer {
  /** Key of the Prepare, for the log. */
  readonly key: string;
  /** Name of the parent snapshot, empty for the bottom layer. */
  readonly parent: string;
  readonly labels: Labels;
  /** Every layer below is served lazily; also true when there is none. */
  readonly allLazyBelow: boolean;
}

/** Neighbouring lazy layers that are mounted as one. */
export interface LazyRun {
  /** Id of the top snapshot of the run; the run's name. */
  readonly id: number;
  /** Bottom to top. */
  readonly layers: readonly Digest[];
  /** True when no other layer lies below. */
  readonly bottom: boolean;
}

/** What the snapshotter needs of whoever serves layers lazily. */
export interface LazyLayers {
  /**
   * The blob this layer can be served from; undefined when containerd must unpack it, which the log then explains.
   * Throws only what the signal says.
   */
  offer(layer: LayerOffer, options: { signal: AbortSignal }): Promise<{ blob: Digest } | undefined>;
  /** Makes or reuses the one mount of a run and gives its mount point. Throws UNAVAILABLE when a layer is broken. */
  mountRun(run: LazyRun, options: { signal: AbortSignal }): Promise<string>;
  /** The snapshot with this id is gone: the run named after it may be unmounted. Nothing when there is none. */
  releaseRun(id: number): Promise<void>;
  /** Lets go of every blob that is not in `inUse`. Never called while an offer is under way. */
  collect(inUse: ReadonlySet<Digest>): Promise<void>;
  /** Disk space that a blob takes at present. */
  usage(blob: Digest): Promise<Usage>;
}

/** Serves nothing lazily: shoal as a plain overlay snapshotter. */
export const noLazyLayers: LazyLayers = {
  offer: async () => undefined,
  mountRun: async () => {
    throw new ShoalError('UNAVAILABLE', 'this layer was served lazily, and lazy layers are switched off');
  },
  releaseRun: async () => {},
  collect: async () => {},
  usage: async () => ({ sizeBytes: 0, inodes: 0 }),
};
