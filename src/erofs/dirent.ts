import { BLOCK_BYTES } from '../core/block-map.ts';
import { type ByteString, byteStringOf } from '../image/layer-tree.ts';
import { invalidInode } from './inode.ts';
import { DIRENT_BYTES, MAX_NAME_BYTES } from './layout.ts';

/** One name of a directory as it is written: where its inode is and what it is. */
export interface DirentTarget {
  /** Byte offset of the inode / 32. */
  readonly nid: number;
  readonly fileType: number;
}

/** i_size of a directory with these sorted names: full blocks, then the used bytes of the last (formats §1.7). */
export function directoryBytes(names: readonly string[]): number {
  let blocks = 0;
  let used = 0;
  for (const name of names) {
    const cost = DIRENT_BYTES + name.length;
    if (used + cost > BLOCK_BYTES) {
      blocks += 1;
      used = 0;
    }
    used += cost;
  }
  return blocks * BLOCK_BYTES + used;
}

/**
 * Writes the directory's blocks: the full ones one after another at byte `blocksAt`, the last one at `tailAt` when it
 * is inline (undefined: it follows the others). `names` are sorted; `target(i)` belongs to `names[i]`.
 */
export function writeDirectory(
  image: Uint8Array,
  view: DataView,
  names: readonly string[],
  target: (index: number) => DirentTarget,
  place: { blocksAt: number; tailAt: number | undefined },
): void {
  let first = 0;
  let at = place.blocksAt;
  while (first < names.length) {
    let end = first;
    let used = 0;
    while (end < names.length) {
      const cost = DIRENT_BYTES + (names[end] as string).length;
      if (used + cost > BLOCK_BYTES) break;
      used += cost;
      end += 1;
    }
    const blockAt = end === names.length && place.tailAt !== undefined ? place.tailAt : at;
    let nameOffset = (end - first) * DIRENT_BYTES;
    for (let index = first; index < end; index += 1) {
      const entry = blockAt + (index - first) * DIRENT_BYTES;
      const name = names[index] as string;
      const { nid, fileType } = target(index);
      view.setUint32(entry, nid, true);
      view.setUint16(entry + 8, nameOffset, true);
      view.setUint8(entry + 10, fileType);
      // names are short: a loop beats a call into native code
      for (let char = 0; char < name.length; char += 1) image[blockAt + nameOffset + char] = name.charCodeAt(char);
      nameOffset += name.length;
    }
    first = end;
    at += BLOCK_BYTES;
  }
}

/** One parsed directory entry. */
export interface Dirent extends DirentTarget {
  readonly name: ByteString;
}

/** The entries of a directory from its blocks, in order. Throws INVALID_LAYER unless they are sorted and in bounds. */
export function* parseDirectory(blocks: readonly Uint8Array[], dirNid: number): Generator<Dirent> {
  let previous = '';
  for (const block of blocks) {
    const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
    const count = block.byteLength < DIRENT_BYTES ? 0 : view.getUint16(8, true) / DIRENT_BYTES;
    if (!Number.isInteger(count) || count < 1 || count * DIRENT_BYTES > block.byteLength) {
      throw invalidInode(dirNid, `directory block with ${count} entries`);
    }
    for (let index = 0; index < count; index += 1) {
      const at = index * DIRENT_BYTES;
      const start = view.getUint16(at + 8, true);
      const end = index + 1 < count ? view.getUint16(at + DIRENT_BYTES + 8, true) : nameEnd(block, start);
      if (start < count * DIRENT_BYTES || end <= start || end > block.byteLength || end - start > MAX_NAME_BYTES) {
        throw invalidInode(dirNid, `directory name at ${start} to ${end}`);
      }
      const name = byteStringOf(block.subarray(start, end));
      if (!(name > previous) || /[\0/]/.test(name))
        throw invalidInode(dirNid, `name ${JSON.stringify(name)} out of order`);
      if (view.getUint32(at + 4, true) !== 0) throw invalidInode(dirNid, 'inode number beyond 32 bits');
      yield { name, nid: view.getUint32(at, true), fileType: view.getUint8(at + 10) };
      previous = name;
    }
  }
}

/** The last name ends at the first NUL or with the block. */
function nameEnd(block: Uint8Array, start: number): number {
  const end = block.indexOf(0, start);
  return end === -1 ? block.byteLength : end;
}
