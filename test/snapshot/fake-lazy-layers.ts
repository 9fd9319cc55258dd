import { cpSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Digest, parseDigest, sha256 } from '../../src/core/digest.ts';
import { ShoalError } from '../../src/errors.ts';
import type { LayerOffer, LazyLayers, LazyRun } from '../../src/snapshot/lazy-layers.ts';
import type { Usage } from '../../src/snapshot/snapshot-info.ts';
import type { Change } from './trees.ts';

const LAYER_LABEL = 'containerd.io/snapshot/cri.layer-digest';

/** Lazy layers whose "mounts" are plain directories with the files of the run's layers. */
export class FakeLazyLayers implements LazyLayers {
  readonly offers: LayerOffer[] = [];
  readonly runs: LazyRun[] = [];
  readonly released: number[] = [];
  readonly collected: Digest[][] = [];
  readonly broken = new Set<Digest>();
  readonly #layers = new Map<Digest, string>();
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
  }

  /** Adds a layer; gives the labels containerd would send with it. */
  add(name: string, files: Change): { blob: Digest; labels: (target: string) => Record<string, string> } {
    const blob = this.blobOf(name);
    const path = join(this.#root, 'layers', name);
    mkdirSync(path, { recursive: true });
    files(path);
    this.#layers.set(blob, path);
    return { blob, labels: (target) => ({ 'containerd.io/snapshot.ref': target, [LAYER_LABEL]: blob }) };
  }

  /** The blob of the layer with this name. */
  blobOf(name: string): Digest {
    return sha256(name);
  }

  offer = async (layer: LayerOffer, _options: { signal: AbortSignal }): Promise<{ blob: Digest } | undefined> => {
    this.offers.push(layer);
    const label = layer.labels.get(LAYER_LABEL);
    if (label === undefined) return undefined;
    const blob = parseDigest(label);
    return this.#layers.has(blob) ? { blob } : undefined;
  };

  mountRun = async (run: LazyRun, _options: { signal: AbortSignal }): Promise<string> => {
    if (run.layers.some((blob) => this.broken.has(blob)))
      throw new ShoalError('UNAVAILABLE', `run ${run.id} is broken`);
    this.runs.push(run);
    const path = join(this.#root, 'runs', String(run.id));
    mkdirSync(path, { recursive: true });
    for (const blob of run.layers) cpSync(this.#layers.get(blob) as string, path, { recursive: true });
    return path;
  };

  releaseRun = async (id: number): Promise<void> => {
    this.released.push(id);
  };

  collect = async (inUse: ReadonlySet<Digest>): Promise<void> => {
    this.collected.push([...inUse]);
  };

  usage = async (blob: Digest): Promise<Usage> => ({ sizeBytes: blob.length, inodes: 1 });
}
