import koffi from 'koffi';

let trim: ((pad: number) => number) | undefined | null;

/** Gives what malloc keeps for later back to the system, by malloc_trim(3); does nothing where libc has none. */
export function returnFreeMemory(): void {
  if (trim === undefined) {
    try {
      trim = koffi.load(null).func('malloc_trim', 'int', ['size_t']);
    } catch {
      trim = null;
    }
  }
  trim?.(0);
}
