import { hash } from 'node:crypto';
import { BLOCK_BYTES } from '../../core/block-map.ts';
import type { ChunkTable } from '../../core/chunk-table.ts';
import { ChunkTableBuilder } from '../../core/chunk-table-builder.ts';
import type { Digest } from '../../core/digest.ts';
import { ShoalError } from '../../errors.ts';
import { showPath } from '../entry-rules.ts';
import type { RangedBlob } from '../layer-reader.ts';
import type { FileExtent, LayerTree } from '../layer-tree.ts';
import { packWindow } from '../pass/window-trimmer.ts';
import { encodeWindows } from '../pass/windows.ts';
import { nextTurn } from '../readers/next-turn.ts';
import { createTreeBuilder } from '../tree-builder.ts';
import { inodeOfEntry } from './soci-inode.ts';
import { parseZtoc, type Ztoc, type ZtocEntry } from './ztoc.ts';

/** A layer as its ztoc describes it. */
export interface SociLayer {
  readonly tree: LayerTree;
  /** Chunks without digests of their own (`span`); every extent is a span with the digest of its compressed bytes. */
  readonly chunks: ChunkTable;
  /** As `encodeWindows` makes them; undefined when no chunk needs one. */
  readonly windows: Uint8Array | undefined;
}

/** Largest chunk, bytes: what of a span is written before its reader goes on. */
const CHUNK_BYTES = 512 * 1024;
/** Some 60 bytes each; a layer of 2 TiB. */
const MAX_CHUNKS = 5_000_000;
/** Entries between turns for other work: some 5 ms. */
const TURN_ENTRIES = 1024;
/** Windows packed between such turns. */
const TURN_WINDOWS = 16;
/** Bytes of a chunk's name that say which layer and ztoc it is of; the others number it. */
const NAME_BASE_BYTES = 24;

/**
 * Makes of a ztoc (SOCI) what every format becomes. `ztoc.bytes` have been held against their digest; whether to believe
 * them was decided before. Throws INVALID_LAYER, UNSUPPORTED_LAYER, TOO_LARGE or INVALID_CHUNK_TABLE.
 */
export async function readSociLayer(
  blob: RangedBlob,
  ztoc: { readonly digest: Digest; readonly bytes: Uint8Array },
  { signal, maxEntries }: { signal: AbortSignal; maxEntries: number },
): Promise<SociLayer> {
  const parsed = parseZtoc(ztoc.bytes);
  if (parsed.compressedSize !== blob.size) {
    throw new ShoalError('INVALID_LAYER', `the ztoc is for ${parsed.compressedSize} bytes, the layer has ${blob.size}`);
  }
  if (parsed.impliesStart) await checkImpliedStart(blob, signal);
  const layout = new SpanLayout(parsed, hash('sha256', `${blob.digest} ${ztoc.digest}`, 'buffer'));
  const tree = createTreeBuilder({ maxEntries });
  let count = 0;
  for (const entry of parsed.entries()) {
    count += 1;
    if (count % TURN_ENTRIES === 0) await nextTurn(signal);
    if (entry.type === 'hardlink') {
      tree.addHardLink(entry.name, entry.linkName);
      continue;
    }
    const node = inodeOfEntry(entry);
    if (node.kind === 'file' && entry.size > 0) node.extents = [layout.place(entry)];
    tree.add(entry.name, node);
  }
  return { tree: tree.build(), chunks: layout.build(), windows: await packed(layout.windows, signal) };
}

/** The first version of the format takes it for granted that the gzip header has no name and no extra fields. */
async function checkImpliedStart(blob: RangedBlob, signal: AbortSignal): Promise<void> {
  const header = await blob.read(0, Math.min(4, blob.size), { signal });
  if (header[0] === 0x1f && header[1] === 0x8b && header[3] === 0) return;
  throw new ShoalError('UNSUPPORTED_LAYER', 'its ztoc does not say where the compressed data starts');
}

async function packed(windows: readonly Uint8Array[], signal: AbortSignal): Promise<Uint8Array | undefined> {
  if (windows.length === 0) return undefined;
  const all: Uint8Array[] = [];
  for (const window of windows) {
    if (all.length % TURN_WINDOWS === TURN_WINDOWS - 1) await nextTurn(signal);
    all.push(packWindow(window));
  }
  return encodeWindows(all);
}

/**
 * Lays files side by side on a device, each from a block of its own, and cuts them where spans end, so that a chunk comes
 * out of one span. A cut may fall inside a block: the table is packed.
 */
class SpanLayout {
  /** In the order in which the table counts them. */
  readonly windows: Uint8Array[] = [];
  readonly #ztoc: Ztoc;
  readonly #table: ChunkTableBuilder;
  readonly #name: Buffer;
  readonly #windowRows = new Map<number, number>();
  #span = 0;
  #deviceEnd = 0;
  #tarEnd = 0;
  #count = 0;

  constructor(ztoc: Ztoc, base: Uint8Array) {
    this.#ztoc = ztoc;
    this.#table = new ChunkTableBuilder({ compressedSize: ztoc.compressedSize, algorithm: 'span', packed: true });
    this.#name = Buffer.from(base);
  }

  /** Gives a file's data a place on the device. */
  place({ name, offset, size }: ZtocEntry): FileExtent {
    if (offset < this.#tarEnd || !(offset + size <= this.#ztoc.uncompressedSize)) {
      throw new ShoalError('INVALID_LAYER', `entry ${showPath(name)} has its data in an impossible place`);
    }
    const deviceOffset = this.#deviceEnd;
    let done = 0;
    while (done < size) {
      const chunk = this.#next(offset + done, Math.min(CHUNK_BYTES, size - done));
      this.#add(deviceOffset + done, chunk);
      done += chunk.length;
    }
    this.#tarEnd = offset + size;
    this.#deviceEnd = Math.ceil((deviceOffset + size) / BLOCK_BYTES) * BLOCK_BYTES;
    return { fileOffset: 0, length: size, device: 0, deviceOffset };
  }

  build(): ChunkTable {
    return this.#table.build();
  }

  /** At most `wanted` bytes of the tar from `tarOffset`, up to the end of the span they are in. */
  #next(tarOffset: number, wanted: number): { tarOffset: number; length: number } {
    const { spans } = this.#ztoc;
    while (this.#span + 1 < spans.length && (spans[this.#span + 1]?.outStart as number) <= tarOffset) this.#span += 1;
    const end = spans[this.#span + 1]?.outStart ?? this.#ztoc.uncompressedSize;
    return { tarOffset, length: Math.min(wanted, end - tarOffset) };
  }

  #add(deviceOffset: number, { tarOffset, length }: { tarOffset: number; length: number }): void {
    if (this.#count === MAX_CHUNKS) throw new ShoalError('TOO_LARGE', `the layer has more than ${MAX_CHUNKS} chunks`);
    const span = this.#ztoc.spans[this.#span];
    if (span === undefined) throw new ShoalError('INVALID_LAYER', 'a ztoc has no spans');
    this.#name.writeBigUInt64BE(BigInt(this.#count), NAME_BASE_BYTES);
    this.#count += 1;
    const codec = this.#ztoc.packing === 'tar' ? 'none' : 'deflate';
    this.#table.addRaw(
      {
        deviceOffset,
        length,
        extentOffset: span.start,
        extentLength: span.end - span.start,
        extentDigest: this.#ztoc.spanDigests[this.#span],
        codec,
        innerOffset: tarOffset - span.outStart,
        ...(codec === 'none' ? {} : { checkpoint: { bits: span.bits, window: this.#windowRow(this.#span) } }),
      },
      this.#name,
    );
  }

  #windowRow(span: number): number | undefined {
    const window = this.#ztoc.spans[span]?.window;
    if (window === undefined) return undefined;
    const row = this.#windowRows.get(span) ?? this.windows.push(window) - 1;
    this.#windowRows.set(span, row);
    return row;
  }
}
