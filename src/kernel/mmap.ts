import koffi from 'koffi';
import { kernelError, lastErrno, libcLibrary } from './libc.ts';

const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;

/** A file mapped shared: what is written to `bytes` is in the file at once, whatever happens to this process. */
export interface Mapping {
  readonly bytes: Uint8Array;
  /** Unmaps; `bytes` must not be touched afterwards. Idempotent. */
  unmap(): void;
}

type Mmap = (hint: null, length: number, prot: number, flags: number, fd: number, offset: number) => bigint | null;
type Munmap = (address: bigint, length: number) => number;

/** Maps the first `length` bytes of `fd` shared, readable and writable (mmap(2)); throws KERNEL_CALL. */
export function mapShared(fd: number, length: number): Mapping {
  const library = libcLibrary();
  const mmap: Mmap = library.func('mmap', 'void *', ['void *', 'size_t', 'int', 'int', 'int', 'int64_t']);
  const munmap: Munmap = library.func('munmap', 'int', ['void *', 'size_t']);
  const address = mmap(null, length, PROT_READ_WRITE, MAP_SHARED, fd, 0);
  if (address === null || BigInt.asIntN(64, address) === -1n) throw kernelError('mmap', lastErrno());
  let mapped = true;
  return {
    bytes: new Uint8Array(koffi.view(address, length)),
    unmap() {
      if (mapped) munmap(address, length);
      mapped = false;
    },
  };
}
