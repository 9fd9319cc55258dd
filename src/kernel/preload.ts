import koffi from 'koffi';

/** Loads a shared library for good, so that the linker finds its SONAME for an addon that needs it; throws koffi's error. */
export function preloadLibrary(path: string): void {
  koffi.load(path);
}
