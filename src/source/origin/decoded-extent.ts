import { freeBytes } from '../../core/byte-pool.ts';

/** What an extent decodes to, for several users: the last one to let go of it gives its memory back. */
export interface DecodedExtent {
  readonly bytes: Uint8Array;
  /** One more user, who must call `release` or leave the memory to the garbage collector. False when it is gone. */
  hold(): boolean;
  /** Called by each user once, who doesn't look at the bytes any more. */
  release(): void;
}

/** Counts the users of an extent that is still to be decoded. */
export interface ComingExtent extends Pick<DecodedExtent, 'hold' | 'release'> {
  /** Here it is; `isFreeable` when nobody but those counted has the memory. */
  arrived(bytes: Uint8Array, isFreeable: boolean): DecodedExtent;
}

export function comingExtent(): ComingExtent {
  return new CountedExtent();
}

class CountedExtent implements ComingExtent, DecodedExtent {
  bytes: Uint8Array = new Uint8Array(0);
  #users = 0;
  #isFreeable = false;
  #isGone = false;

  arrived(bytes: Uint8Array, isFreeable: boolean): DecodedExtent {
    this.bytes = bytes;
    this.#isFreeable = isFreeable;
    return this;
  }

  hold(): boolean {
    if (this.#isGone) return false;
    this.#users += 1;
    return true;
  }

  release(): void {
    this.#users -= 1;
    if (this.#users > 0 || !this.#isFreeable || this.#isGone) return;
    this.#isGone = true;
    freeBytes(this.bytes);
  }
}
