import { BLOCK_BYTES } from '../core/block-map.ts';
import { edgeAfter } from '../core/policy/file-edges.ts';
import { createReadahead } from '../core/policy/readahead.ts';
import type { Logger } from '../log.ts';
import type { BlobDevice } from './blob-device.ts';
import type { DemandOrder } from './demand-order.ts';

/** Fetches ahead of one device's sequential readers, at prefetch urgency and within a budget. */
export interface ReadaheadDriver {
  /** A demand read needs chunks [first, end). */
  onDemand(first: number, end: number): void;
  close(): void;
}

/** Most bytes a device has under way ahead of its readers: two full windows. */
const BUDGET_BYTES = 32 * 1024 * 1024;
/** Longest life of one readahead, ms: far beyond any source's own deadline. */
const DEADLINE_MS = 120_000;
/** Bytes per step of `prefetchAll`: a few extents, so that a step is one ranged request. */
const STEP_BYTES = 8 * 1024 * 1024;
/** Steps of `prefetchAll` under way: network, inflate and disk overlap; bounds memory at 32 MiB. */
const STEPS_PARALLEL = 4;

/** `edges`: blocks at which large files of the device begin or end. */
export function createReadaheadDriver(
  components: {
    device: Pick<BlobDevice, 'fill' | 'table' | 'size' | 'name' | 'info'>;
    log: Logger;
    order: Pick<DemandOrder, 'note'>;
  },
  { edges }: { edges: Uint32Array },
): ReadaheadDriver {
  const { device, log, order } = components;
  const policy = createReadahead({
    deviceSize: device.size,
    markedBytes: device.info.prefetchBytes ?? 0,
    edgeAfter: (offset) => BLOCK_BYTES * edgeAfter(edges, Math.floor(offset / BLOCK_BYTES)),
  });
  const closed = new AbortController();
  let underWay = 0;
  return {
    onDemand(first, end) {
      if (end <= first) return;
      const offset = device.table.row(first).deviceOffset;
      const length = device.table.blocksOf(end - 1).end * BLOCK_BYTES - offset;
      const ahead = policy.onFault({ offset, length }, BUDGET_BYTES - underWay);
      if (ahead === undefined) return;
      underWay += ahead.length;
      const rows = device.table.covering(ahead.offset, ahead.length);
      order.note(rows.first, rows.end);
      const signal = AbortSignal.any([closed.signal, AbortSignal.timeout(DEADLINE_MS)]);
      device
        .fill(ahead.offset, ahead.length, { signal, urgency: 'prefetch' })
        .catch((error) => {
          // Whoever really needs the range asks again and gets the error.
          if (!closed.signal.aborted) log.debug('readahead failed', { layer: device.name, error: String(error) });
        })
        .finally(() => {
          underWay -= ahead.length;
        });
    },
    close: () => closed.abort(),
  };
}

/**
 * Completes a device in the background, in device order. Resolves when it is filled; rejects with the signal's reason
 * or with the first error of a source or of the disk.
 */
export async function prefetchAll(
  device: Pick<BlobDevice, 'fill' | 'size'>,
  { signal, endByte = device.size }: { signal: AbortSignal; endByte?: number },
): Promise<void> {
  const stop = new AbortController();
  const both = AbortSignal.any([signal, stop.signal]);
  const end = Math.min(endByte, device.size);
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < end) {
      const offset = next;
      next += STEP_BYTES;
      await device.fill(offset, Math.min(STEP_BYTES, end - offset), { signal: both, urgency: 'prefetch' });
    }
  };
  try {
    await Promise.all(Array.from({ length: STEPS_PARALLEL }, worker));
  } catch (error) {
    stop.abort(error);
    throw error;
  }
}
