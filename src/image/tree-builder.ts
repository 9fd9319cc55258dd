import { ShoalError } from '../errors.ts';
import { checkInode, keptXattrs, MAX_NAME_BYTES, MAX_PATH_BYTES, refuse, showPath, splitPath } from './entry-rules.ts';
import {
  type ByteString,
  copyDirMeta,
  type DirNode,
  emptyDir,
  type InodeNode,
  type LayerTree,
  WHITEOUT,
} from './layer-tree.ts';

/** Entries of one layer, parents that nobody named included: 10 million cost about 3 GB of heap, so readers ask for less. */
const MAX_ENTRIES = 10_000_000;

const WHITEOUT_PREFIX = '.wh.';
const AUFS_PREFIX = '.wh..wh.';
const OPAQUE_NAME = '.wh..wh..opq';

/** Files that an eStargz layer carries for its readers, at its root only. */
const HIDDEN_AT_ROOT: ReadonlySet<string> = new Set([
  '.prefetch.landmark',
  '.no.prefetch.landmark',
  'stargz.index.json',
]);

/**
 * Makes the tree of one layer out of its entries in the order of the tar, with tar's rules: a later entry replaces an
 * earlier one, a directory over a directory only changes its attributes. The one place where hostile entries are
 * refused; every method throws INVALID_LAYER naming the entry, or TOO_LARGE. Call nothing after a throw.
 */
export interface TreeBuilder {
  /** Adds (and keeps) an inode. `.wh.` names are whiteouts, as the OCI image spec (layer.md#whiteouts) has them. */
  add(path: ByteString, node: InodeNode): void;
  /** Another name for the non-directory at `target`, which may come later. */
  addHardLink(path: ByteString, target: ByteString): void;
  /** Hides `path` of the layers below, never an entry of this layer; for formats that don't use `.wh.` names. */
  addWhiteout(path: ByteString): void;
  /** Resolves links and whiteouts. Once. */
  build(): LayerTree;
}

/** A tree builder. `maxEntries`: entries after which TOO_LARGE is thrown. */
export function createTreeBuilder(init: { maxEntries?: number } = {}): TreeBuilder {
  return new Builder(init.maxEntries ?? MAX_ENTRIES);
}

/** A hard link whose target was not there yet; stands in the tree until `build`. */
interface PendingLink {
  readonly kind: 'link';
  readonly path: ByteString;
  readonly target: ByteString;
  state: 'pending' | 'resolving' | InodeNode;
}

/** What the builder keeps in `children` meanwhile. */
type Entry = InodeNode | PendingLink | typeof WHITEOUT;

/** Where an entry goes: a name in a directory. */
interface Place {
  readonly parent: DirNode;
  readonly name: ByteString;
}

class Builder implements TreeBuilder {
  readonly #root: DirNode = { ...emptyDir(), implied: true };
  readonly #maxEntries: number;
  readonly #links: (Place & { readonly link: PendingLink })[] = [];
  // Applied at the end, so that a whiteout never hides what the same layer adds before or after it.
  readonly #whiteouts: Place[] = [];
  #entries = 0;
  // The directory of the last entry under the text that named it: entries of one directory come together.
  #lastPrefix: string | undefined;
  #lastDir: DirNode = this.#root;

  constructor(maxEntries: number) {
    this.#maxEntries = maxEntries;
  }

  add(path: ByteString, node: InodeNode): void {
    this.#count();
    if (node.kind === 'dir' && node.children.size > 0) throw new RangeError('add directories without children');
    checkInode(path, node);
    if (node.xattrs !== undefined) {
      const kept = keptXattrs(path, node.xattrs);
      if (kept === undefined) delete node.xattrs;
      else node.xattrs = kept;
    }
    let place = this.#placeInLastDir(path);
    if (place === undefined) {
      const parts = splitPath(path);
      if (parts.length === 0) {
        if (node.kind !== 'dir') throw refuse(path, 'makes the root something else than a directory');
        updateDir(this.#root, node);
        return;
      }
      place = this.#placeFor(path, parts);
      if (place === undefined) return;
    }
    const before = entryAt(place);
    if (before?.kind === 'dir' && node.kind === 'dir') updateDir(before, node);
    else this.#put(place, node);
  }

  addHardLink(path: ByteString, target: ByteString): void {
    this.#count();
    const parts = splitPath(path);
    if (parts.length === 0) throw refuse(path, 'makes the root a hard link');
    const place = this.#placeFor(path, parts);
    if (place === undefined) return;
    const found = this.#find(target, path);
    if (found !== undefined && found.kind !== 'link') {
      this.#put(place, linkable(found, path));
      return;
    }
    const link: PendingLink = { kind: 'link', path, target, state: 'pending' };
    this.#put(place, link);
    this.#links.push({ ...place, link });
  }

  addWhiteout(path: ByteString): void {
    this.#count();
    const parts = splitPath(path);
    if (parts.some((part) => part.startsWith(WHITEOUT_PREFIX))) throw refuse(path, 'hides what no layer can hold');
    const name = parts.pop();
    if (name === undefined) throw refuse(path, 'hides the root');
    this.#whiteouts.push({ parent: this.#directory(path, parts), name });
  }

  build(): LayerTree {
    for (const { parent, name, link } of this.#links) {
      // A later entry may have taken the name, but then the target still had to exist.
      const node = this.#resolve(link);
      if (parent.children.get(name) === (link as unknown)) parent.children.set(name, node);
    }
    for (const { parent, name } of this.#whiteouts) {
      const child = parent.children.get(name);
      if (child === undefined) parent.children.set(name, WHITEOUT);
      // The same layer hides the lower directory and brings one of its own: nothing of the lower one may show.
      else if (child.kind === 'dir') child.opaque = true;
    }
    return { root: this.#root };
  }

  /** Where the entry goes; undefined when its name says it is a whiteout (noted here) or nothing to mount. */
  #placeFor(path: ByteString, parts: ByteString[]): Place | undefined {
    if (parts.some((part) => part.startsWith(WHITEOUT_PREFIX))) {
      this.#markerEntry(path, parts);
      return undefined;
    }
    const name = parts.pop() as ByteString;
    if (parts.length === 0 && HIDDEN_AT_ROOT.has(name)) return undefined;
    const parent = this.#directory(path, parts);
    this.#lastPrefix = path.endsWith('/') || parts.length === 0 ? undefined : path.slice(0, -name.length);
    this.#lastDir = parent;
    return { parent, name };
  }

  /** The common case without taking the path apart again; undefined when anything about it is unusual. */
  #placeInLastDir(path: ByteString): Place | undefined {
    const prefix = this.#lastPrefix;
    if (prefix === undefined || !path.startsWith(prefix) || path.length > MAX_PATH_BYTES) return undefined;
    const name = path.slice(prefix.length) as ByteString;
    if (name === '' || name.length > MAX_NAME_BYTES || name.startsWith('.') || /[/\0]/.test(name)) return undefined;
    return { parent: this.#lastDir, name };
  }

  #put(place: Place, entry: Entry): void {
    // A directory that goes away may be (or hold) the remembered one.
    if (entryAt(place)?.kind === 'dir') this.#lastPrefix = undefined;
    (place.parent.children as Map<ByteString, Entry>).set(place.name, entry);
  }

  #markerEntry(path: ByteString, parts: ByteString[]): void {
    const name = parts.pop() as ByteString;
    const aboveAt = parts.findIndex((part) => part.startsWith(WHITEOUT_PREFIX));
    if (aboveAt >= 0) {
      if ((parts[aboveAt] as string).startsWith(AUFS_PREFIX)) return;
      throw refuse(path, 'lies below a whiteout');
    }
    if (name === OPAQUE_NAME) {
      this.#directory(path, parts).opaque = true;
      return;
    }
    if (name.startsWith(AUFS_PREFIX)) return;
    const hidden = name.slice(WHITEOUT_PREFIX.length) as ByteString;
    if (hidden === '' || hidden === '.' || hidden === '..') throw refuse(path, 'is a whiteout of nothing');
    this.#whiteouts.push({ parent: this.#directory(path, parts), name: hidden });
  }

  /** The directory at these components; those that are missing are made as containerd makes them. */
  #directory(path: ByteString, parts: readonly ByteString[]): DirNode {
    let dir = this.#root;
    for (const part of parts) {
      const child = dir.children.get(part) as Entry | undefined;
      if (child === undefined) {
        this.#count();
        const made: DirNode = { ...emptyDir(), implied: true };
        dir.children.set(part, made);
        dir = made;
      } else if (child.kind === 'dir') dir = child;
      else throw refuse(path, `lies below ${showPath(part)}, which is not a directory but a ${child.kind}`);
    }
    return dir;
  }

  /** What is at a link's target now. Symlinks are not followed: a link through one could leave the layer. */
  #find(target: ByteString, path: ByteString): Entry | undefined {
    let parts: ByteString[];
    try {
      parts = splitPath(target);
    } catch (cause) {
      const why = cause instanceof ShoalError ? cause.message : '';
      throw refuse(path, `is a hard link to a bad place: ${why}`);
    }
    let entry: Entry = this.#root;
    for (const part of parts) {
      if (entry.kind !== 'dir') return undefined;
      const child = entry.children.get(part) as Entry | undefined;
      if (child === undefined) return undefined;
      entry = child;
    }
    return entry;
  }

  /** Follows a chain of links to its inode; iterative, because a layer may hold a chain of any length. */
  #resolve(link: PendingLink): InodeNode {
    const chain: PendingLink[] = [];
    let at: PendingLink = link;
    while (at.state === 'pending') {
      at.state = 'resolving';
      chain.push(at);
      const next = this.#find(at.target, at.path);
      if (next === undefined)
        throw refuse(at.path, `is a hard link to ${showPath(at.target)}, which is not in the layer`);
      if (next.kind === 'link') at = next;
      else at.state = linkable(next, at.path);
    }
    if (at.state === 'resolving') throw refuse(at.path, 'is part of a cycle of hard links');
    const node = at.state;
    for (const passed of chain) passed.state = node;
    return node;
  }

  #count(): void {
    this.#entries += 1;
    if (this.#entries > this.#maxEntries) {
      throw new ShoalError('TOO_LARGE', `the layer has more than ${this.#maxEntries} entries`);
    }
  }
}

function entryAt(place: Place): Entry | undefined {
  return place.parent.children.get(place.name) as Entry | undefined;
}

function linkable(entry: InodeNode | typeof WHITEOUT, path: ByteString): InodeNode {
  if (entry.kind === 'dir') throw refuse(path, 'is a hard link to a directory');
  if (entry.kind === 'whiteout') throw refuse(path, 'is a hard link to a whiteout');
  return entry;
}

function updateDir(dir: DirNode, from: DirNode): void {
  copyDirMeta(dir, from);
  if (from.opaque) dir.opaque = true;
}
