import type { ByteString, InodeNode } from '../../layer-tree.ts';
import { byteStringOf } from '../../layer-tree.ts';
import { createTreeBuilder, type TreeBuilder } from '../../tree-builder.ts';
import { nextTurn } from '../next-turn.ts';
import type { BinaryReader } from './binary.ts';
import { invalidRafs, type RafsBootstrap } from './model.ts';
import { type RawInode, V6Inodes } from './v6-inode.ts';
import { parseV6Super } from './v6-super.ts';

const DIRENT_BYTES = 12;
/** Entries handled before other work gets a turn: about 5 ms. */
const ENTRIES_PER_TURN = 4000;

interface Dirent {
  readonly nid: number;
  readonly name: ByteString;
}

/**
 * Parses a RAFS v6 bootstrap (formats §2.1–2.4). It is an EROFS image, but nothing of it is mounted: all of it is read
 * into a tree. Throws INVALID_LAYER, UNSUPPORTED_LAYER or TOO_LARGE.
 */
export async function parseV6(
  image: BinaryReader,
  { maxEntries, signal }: { maxEntries: number; signal: AbortSignal },
): Promise<RafsBootstrap> {
  const superblock = parseV6Super(image);
  const inodes = new V6Inodes(image, superblock);
  const builder = createTreeBuilder({ maxEntries });
  const root = inodes.read(superblock.rootNid);
  const rootNode = inodes.node(root);
  if (rootNode.kind !== 'dir') throw invalidRafs(`its root is a ${rootNode.kind}`);
  builder.add('/' as ByteString, rootNode);
  const walk = new Walk(inodes, builder, root);
  await walk.run(signal);
  return { version: 6, blobs: superblock.blobs, chunks: superblock.chunks, tree: builder.build() };
}

class Walk {
  readonly #inodes: V6Inodes;
  readonly #builder: TreeBuilder;
  readonly #open: { raw: RawInode; path: string }[];
  readonly #dirs = new Set<number>();
  /** First path of everything else, for its other names. */
  readonly #files = new Map<number, { path: ByteString; node: InodeNode }>();
  #entries = 0;

  constructor(inodes: V6Inodes, builder: TreeBuilder, root: RawInode) {
    this.#inodes = inodes;
    this.#builder = builder;
    this.#open = [{ raw: root, path: '' }];
    this.#dirs.add(root.nid);
  }

  async run(signal: AbortSignal): Promise<void> {
    for (let dir = this.#open.pop(); dir !== undefined; dir = this.#open.pop()) {
      const names = new Set<string>();
      for (const { name, nid } of this.#direntsOf(dir.raw)) {
        if (name === '.' || name === '..') continue;
        if (names.has(name) || name === '' || name.includes('/'))
          throw invalidRafs(`a bad name in inode ${dir.raw.nid}`);
        names.add(name);
        this.#add(`${dir.path}${name}` as ByteString, nid);
        this.#entries += 1;
        if (this.#entries % ENTRIES_PER_TURN === 0) await nextTurn(signal);
      }
    }
  }

  #add(path: ByteString, nid: number): void {
    if (this.#dirs.has(nid)) throw invalidRafs(`directory ${nid} has two names`);
    const known = this.#files.get(nid);
    if (known !== undefined) {
      this.#builder.addHardLink(path, known.path);
      return;
    }
    const raw = this.#inodes.read(nid);
    const node = this.#inodes.node(raw);
    this.#builder.add(path, node);
    if (node.kind !== 'dir') {
      this.#files.set(nid, { path, node });
      return;
    }
    this.#dirs.add(nid);
    this.#open.push({ raw, path: `${path}/` });
  }

  *#direntsOf(raw: RawInode): Generator<Dirent> {
    for (const block of this.#inodes.blocks(raw)) {
      const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
      const room = block.byteLength;
      const namesAt = room < DIRENT_BYTES ? 0 : view.getUint16(8, true);
      if (namesAt < DIRENT_BYTES || namesAt % DIRENT_BYTES !== 0 || namesAt > room) {
        throw invalidRafs(`directory ${raw.nid} has names at byte ${namesAt} of a block`);
      }
      for (let at = 0; at < namesAt; at += DIRENT_BYTES) {
        const nid = view.getBigUint64(at, true);
        const start = view.getUint16(at + 8, true);
        const isLast = at + DIRENT_BYTES === namesAt;
        const end = isLast ? endOfLast(block, start) : view.getUint16(at + DIRENT_BYTES + 8, true);
        if (start < namesAt || end <= start || end > room || nid > 0xffffffffn) {
          throw invalidRafs(`directory ${raw.nid} has a bad entry`);
        }
        yield { nid: Number(nid), name: byteStringOf(block.subarray(start, end)) };
      }
    }
  }
}

/** The last name of a block ends with the block or a NUL. */
function endOfLast(block: Uint8Array, start: number): number {
  const end = block.indexOf(0, start);
  return end < 0 ? block.byteLength : end;
}
