import { BLOCK_BYTES } from '../block-map.ts';
import type { ChunkTable } from '../chunk-table.ts';
import { CLAIM_WAIT_LIMITS } from './claim-wait-limits.ts';

/** What is claimed for a row: all rows of its extent go to one node, under the name of the first. */
export interface ClaimUnit {
  /** Rows [first, end) lie in the same extent; `first` names the unit. */
  readonly first: number;
  readonly end: number;
  /** Which rows of the blob go to the same coordinator: those that start in the same 4 MiB of the device. */
  readonly region: number;
}

/** The unit of a row; the same on every node, because the table follows from the blob. */
export function claimUnit(table: ChunkTable, row: number): ClaimUnit {
  const { extentOf, blockStart } = table.columns;
  const extent = extentOf[row];
  let first = row;
  while (first > 0 && extentOf[first - 1] === extent) first -= 1;
  let end = row + 1;
  while (end < table.count && extentOf[end] === extent) end += 1;
  const region = Math.floor(((blockStart[first] as number) * BLOCK_BYTES) / CLAIM_WAIT_LIMITS.regionBytes);
  return { first, end, region };
}
