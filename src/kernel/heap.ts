import koffi from 'koffi';
import { callOnThread, type ThreadCallable } from './thread-call.ts';

let trim: ThreadCallable | undefined | null;

/**
 * Gives what malloc keeps for later back to the system, by malloc_trim(3), on the thread pool: it walks the whole heap.
 * Does nothing where libc has none.
 */
export async function returnFreeMemory(): Promise<void> {
  if (trim === undefined) trim = loadTrim();
  if (trim !== null) await callOnThread(trim, 0);
}

function loadTrim(): ThreadCallable | null {
  try {
    return koffi.load(null).func('malloc_trim', 'int', ['size_t']);
  } catch {
    return null;
  }
}
