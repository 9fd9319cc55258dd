import { BLOCK_BYTES } from '../core/block-map.ts';
import type { Logger } from '../log.ts';
import type { BlobDevice } from '../store/blob-device.ts';
import type { RowRun } from '../store/demand-order.ts';

/** How long rows that others wait for are tried, ms; then somebody else's lease is on. */
const DEADLINE_MS = 30_000;

/** Starts to fetch these rows at low priority; that it failed matters to nobody here. */
export function fillRows(device: BlobDevice | undefined, { first, end }: RowRun, log: Logger): void {
  if (device === undefined || end <= first) return;
  const { deviceOffset } = device.table.row(first);
  const length = device.table.blocksOf(end - 1).end * BLOCK_BYTES - deviceOffset;
  const signal = AbortSignal.timeout(DEADLINE_MS);
  device.fill(deviceOffset, length, { signal, urgency: 'prefetch' }).catch((error) => {
    log.debug('rows of a claim were not fetched', { layer: device.blob, first, end, error: String(error) });
  });
}
