/** Device bytes [start, end) that a reader of one file goes through one after the other. */
export interface FileRun {
  readonly start: number;
  readonly end: number;
}

/**
 * Files whose ends readahead keeps to, bytes: the first window. A smaller one has no room for a window, and starts read
 * small ones in the order of their directories: what lies behind one is often what is read next.
 */
export const LARGE_FILE_BYTES = 1024 * 1024;

/**
 * Where large files begin and end on a device, ascending, each place once. Where files share bytes, what lies inside
 * one of them is no edge. Small files between two edges are as one. At most one edge for each half of LARGE_FILE_BYTES.
 */
export function fileEdges(runs: Iterable<FileRun>): number[] {
  const large = [...runs].filter(({ start, end }) => end - start >= LARGE_FILE_BYTES);
  large.sort((a, b) => a.start - b.start);
  const edges: number[] = [];
  let last = -1;
  for (const { start, end } of large) {
    if (start < last) {
      last = Math.max(last, end);
      continue;
    }
    if (last >= 0) edges.push(last);
    if (start !== last) edges.push(start);
    last = end;
  }
  if (last >= 0) edges.push(last);
  return edges;
}

/** The first edge behind `at`; infinite when there is none. Edges ascend, in any unit. */
export function edgeAfter(edges: ArrayLike<number>, at: number): number {
  let low = 0;
  let high = edges.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((edges[middle] as number) <= at) low = middle + 1;
    else high = middle;
  }
  return edges[low] ?? Number.POSITIVE_INFINITY;
}
