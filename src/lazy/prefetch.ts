import { withContext } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { BlobDevice } from '../store/blob-device.ts';
import { prefetchAll } from '../store/readahead.ts';

/** Fetches what nobody asked for yet: one device after the other, giving way to reads that somebody waits for. */
export interface Prefetcher {
  /** The device came into use. */
  add(device: BlobDevice): void;
  /** Stops what is under way and forgets the rest. Idempotent. */
  stop(): Promise<void>;
}

/** `hints`: fetch what the image marks as needed at start; `background`: then the rest of the layer as well. */
export function createPrefetcher(
  components: { log: Logger },
  init: { hints: boolean; background: boolean },
): Prefetcher {
  const stopping = new AbortController();
  const { signal } = stopping;
  let queue: Promise<void> = Promise.resolve();
  const seen = new WeakSet<BlobDevice>();

  async function fetch(device: BlobDevice, endByte: number): Promise<void> {
    if (signal.aborted || endByte <= 0) return;
    try {
      await prefetchAll(device, { signal, endByte });
    } catch (error) {
      if (signal.aborted) return;
      components.log.info('prefetching stopped', { layer: device.blob, why: withContext(error, {}).describe() });
    }
  }

  return {
    add(device) {
      if (seen.has(device) || device.complete) return;
      seen.add(device);
      const hinted = init.hints ? (device.info.prefetchBytes ?? 0) : 0;
      queue = queue.then(() => fetch(device, init.background ? device.size : hinted));
    },
    async stop() {
      stopping.abort();
      await queue;
    },
  };
}
