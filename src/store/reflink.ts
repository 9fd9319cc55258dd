import { ERRNO } from '../kernel/errno.ts';
import { cloneRange, type FilePlace } from '../kernel/reflink.ts';

/** Lets device files share disk blocks, where the file system can (reflink). */
export interface Reflink {
  /** False once the file system has said that it cannot. */
  readonly possible: boolean;
  /** True when the blocks at `to` are those of `from` now. Never rejects: what cannot be shared is written. */
  share(from: FilePlace, to: FilePlace, length: number): Promise<boolean>;
}

/** What a file system that cannot share blocks answers, or not blocks as small as ours. */
const CANNOT: ReadonlySet<number> = new Set([ERRNO.EOPNOTSUPP, ERRNO.EXDEV, ERRNO.EINVAL, ERRNO.ENOTTY]);

/** For the files of one store, which lie on one file system: it is asked until it says that it cannot. */
export function createReflink(clone: typeof cloneRange = cloneRange): Reflink {
  let possible = true;
  return {
    get possible() {
      return possible;
    },
    async share(from, to, length) {
      if (!possible) return false;
      const result = await clone(from, to, length).catch(() => -ERRNO.EAGAIN);
      if (CANNOT.has(-result)) possible = false;
      return result === 0;
    },
  };
}
