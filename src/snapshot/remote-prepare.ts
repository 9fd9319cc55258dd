import type { Digest } from '../core/digest.ts';
import { orAborted } from '../core/or-aborted.ts';
import { hasCode, ShoalError } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { LayerOffer, LazyLayers } from './lazy-layers.ts';
import type { MetaStore, SnapshotRecord } from './metastore.ts';
import type { Labels } from './snapshot-info.ts';

/** Name under which containerd will look for the layer it is about to unpack (core/snapshots `LabelSnapshotRef`). */
export const TARGET_LABEL = 'containerd.io/snapshot.ref';

/** A Prepare that may turn out to be unnecessary. */
export interface RemoteRequest {
  readonly key: string;
  readonly parent: string;
  readonly labels: Labels;
  readonly target: string;
}

/** The remote snapshotter handshake (containerd docs/snapshotters/remote-snapshotter.md). */
export interface RemotePrepare {
  /** True when the target is committed and durable; false when containerd must unpack. Equal requests share one offer. */
  prepare(request: RemoteRequest, options: { signal: AbortSignal }): Promise<boolean>;
  /** Tells the lazy layers which blobs are in use, unless an offer is under way. */
  collect(): Promise<void>;
  /** Gives up all offers. Idempotent. */
  close(): Promise<void>;
}

/** Makes the handshake over a store and whoever serves layers lazily. */
export function createRemotePrepare(components: {
  readonly store: MetaStore;
  readonly lazyLayers: LazyLayers;
  readonly log: Logger;
}): RemotePrepare {
  return new JoinedPrepare(components);
}

/** An offer with everyone who waits for it; it is given up when nobody does. */
interface Offer {
  readonly result: Promise<boolean>;
  readonly abort: AbortController;
  waiting: number;
}

class JoinedPrepare implements RemotePrepare {
  readonly #store: MetaStore;
  readonly #lazyLayers: LazyLayers;
  readonly #log: Logger;
  readonly #offers = new Map<string, Offer>();
  #collecting: Promise<void> | undefined;
  #closed = false;

  constructor(components: { store: MetaStore; lazyLayers: LazyLayers; log: Logger }) {
    this.#store = components.store;
    this.#lazyLayers = components.lazyLayers;
    this.#log = components.log;
  }

  async prepare(request: RemoteRequest, { signal }: { signal: AbortSignal }): Promise<boolean> {
    while (this.#collecting !== undefined) await this.#collecting.catch(() => {});
    if (this.#closed) throw new ShoalError('UNAVAILABLE', 'the snapshotter is closed');
    signal.throwIfAborted();
    const name = JSON.stringify([request.target, request.parent]);
    const offer = this.#offers.get(name) ?? this.#start(name, request);
    offer.waiting += 1;
    try {
      return await orAborted(offer.result, signal);
    } finally {
      offer.waiting -= 1;
      if (offer.waiting === 0 && signal.aborted) {
        if (this.#offers.get(name) === offer) this.#offers.delete(name);
        offer.abort.abort(signal.reason);
      }
    }
  }

  async collect(): Promise<void> {
    if (this.#offers.size > 0 || this.#collecting !== undefined) return;
    const inUse = new Set<Digest>();
    for (const { lazy } of this.#store.records()) if (lazy !== undefined) inUse.add(lazy);
    this.#collecting = this.#lazyLayers.collect(inUse).finally(() => {
      this.#collecting = undefined;
    });
    await this.#collecting;
  }

  async close(): Promise<void> {
    this.#closed = true;
    const offers = [...this.#offers.values()];
    for (const { abort } of offers) abort.abort(new ShoalError('UNAVAILABLE', 'the snapshotter closes'));
    await Promise.allSettled([...offers.map(({ result }) => result), this.#collecting]);
  }

  #start(name: string, request: RemoteRequest): Offer {
    const abort = new AbortController();
    const result = this.#run(request, abort.signal).finally(() => {
      if (this.#offers.get(name)?.abort === abort) this.#offers.delete(name);
    });
    result.catch(() => {});
    const offer = { result, abort, waiting: 0 };
    this.#offers.set(name, offer);
    return offer;
  }

  async #run(request: RemoteRequest, signal: AbortSignal): Promise<boolean> {
    const { key, parent, labels, target } = request;
    const known = this.#find(target);
    if (known !== undefined) return this.#answers(known, request);
    const parents = parent === '' ? [] : this.#store.parentChain(parent);
    const allLazyBelow = parents.every(({ lazy }) => lazy !== undefined);
    const offered = await this.#offer({ key, parent, labels, allLazyBelow }, signal);
    if (offered === undefined) return false;
    await this.#store.update((transaction) => {
      signal.throwIfAborted();
      transaction.createSnapshot('active', key, parent, labels);
      transaction.commitActive(key, target, { sizeBytes: 0, inodes: 0 }, { labels, lazy: offered.blob });
    });
    this.#log.info('layer is served lazily', { layer: offered.blob, snapshot: target });
    return true;
  }

  /** What can't be served lazily can still be unpacked, whatever the reason. */
  async #offer(layer: LayerOffer, signal: AbortSignal): Promise<{ blob: Digest } | undefined> {
    try {
      return await this.#lazyLayers.offer(layer, { signal });
    } catch (error) {
      signal.throwIfAborted();
      this.#log.warn('layer is unpacked: offering it failed', { key: layer.key, error: (error as Error).message });
      return undefined;
    }
  }

  /**
   * containerd looks for a committed snapshot with this label and exactly this parent. One under the same name on top of
   * another parent (unpacked in another namespace) is no answer: it would ask three times and give up the pull.
   */
  #answers(known: SnapshotRecord, { parent, target }: RemoteRequest): boolean {
    const { info } = known;
    if (info.kind === 'committed' && info.parent === parent && info.labels.get(TARGET_LABEL) === target) return true;
    this.#log.info('layer is unpacked: its name is taken by a snapshot with another parent', { snapshot: target });
    return false;
  }

  #find(name: string): SnapshotRecord | undefined {
    try {
      return this.#store.getInfo(name);
    } catch (error) {
      if (hasCode(error, 'NOT_FOUND')) return undefined;
      throw error;
    }
  }
}
