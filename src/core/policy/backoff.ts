/** Ms to wait after `failures` (≥ 1) failures in a row: `firstMs`, doubled with each further one, at most `longestMs`. */
export function backoffMs(failures: number, limits: { readonly firstMs: number; readonly longestMs: number }): number {
  return Math.min(limits.longestMs, limits.firstMs * 2 ** (failures - 1));
}
