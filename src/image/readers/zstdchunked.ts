import { type Digest, digestAlgorithm, digestHex, parseDigest } from '../../core/digest.ts';
import { hasCode, ShoalError } from '../../errors.ts';
import { decodeExtent } from '../codec.ts';
import type { LayerContent, LayerDescriptor, LayerIndexBytes, LayerReader, RangedBlob } from '../layer-reader.ts';
import { createTreeBuilder, type TreeBuilder } from '../tree-builder.ts';
import {
  DEFAULT_LIMITS,
  type EstargzLimits,
  NO_PREFETCH_LANDMARK,
  PREFETCH_LANDMARK,
  TOC_DIGEST_ANNOTATION,
} from './estargz.ts';
import { EstargzLayout } from './estargz-layout.ts';
import { parseToc, type TocEntry } from './estargz-toc.ts';
import { hashInTurns } from './hash-in-turns.ts';
import { inodeOf } from './toc-inode.ts';
import {
  type CodedRange,
  footerPosition,
  hasZstdchunkedFooter,
  parseManifestPosition,
  ZSTDCHUNKED_FOOTER_BYTES,
} from './zstdchunked-footer.ts';
import { ZstdchunkedLayout } from './zstdchunked-layout.ts';

/** Annotation prefixes of containers/storage, today's first, then that of 2022 (stargz tools still use it). */
const PREFIXES = ['io.github.containers.zstd-chunked.', 'io.containers.zstd-chunked.'];
const CHECKSUM = 'manifest-checksum';
const POSITION = 'manifest-position';
/** Header of the skippable frame around the manifest, bytes. */
const FRAME_HEADER_BYTES = 8;

/** Where the TOC is, and what pins it: the digest of its compressed bytes, or of the JSON. */
interface TocPin {
  readonly position: CodedRange | undefined;
  readonly coded: Digest | undefined;
  readonly json: Digest | undefined;
}

/**
 * Reads zstd:chunked layers of both generations (containers/storage pkg/chunked, stargz-snapshotter docs/estargz.md) that
 * carry a digest of their TOC in an annotation. The tar-split data is not looked at. `read` throws UNSUPPORTED_LAYER,
 * TOO_LARGE, INVALID_LAYER or INVALID_CHUNK_TABLE.
 */
export function createZstdchunkedReader(init: { limits?: Partial<EstargzLimits> } = {}): LayerReader {
  return new ZstdchunkedReader({ ...DEFAULT_LIMITS, ...init.limits });
}

class ZstdchunkedReader implements LayerReader {
  readonly format = 'zstd:chunked';
  readonly #limits: EstargzLimits;

  constructor(limits: EstargzLimits) {
    this.#limits = limits;
  }

  async probe(layer: LayerDescriptor, blob: RangedBlob, { signal }: { signal: AbortSignal }): Promise<boolean> {
    const { annotations } = layer;
    const isPinned = PREFIXES.some((prefix) => annotations[prefix + CHECKSUM] !== undefined);
    if (!isPinned && annotations[TOC_DIGEST_ANNOTATION] === undefined) return false;
    return hasZstdchunkedFooter(await readTail(blob, signal));
  }

  async read(
    layer: LayerDescriptor,
    blob: RangedBlob,
    { signal, index }: { signal: AbortSignal; index?: LayerIndexBytes },
  ): Promise<LayerContent> {
    const pin = pinOf(layer);
    const tail = await readTail(blob, signal);
    const position = pin.position ?? footerPosition(tail);
    if (position === undefined || !hasZstdchunkedFooter(tail)) {
      throw new ShoalError('UNSUPPORTED_LAYER', 'the layer has no zstd:chunked footer');
    }
    const { offset, length, decodedLength } = position;
    const { maxTocBytes, maxJsonBytes } = this.#limits;
    if (length > maxTocBytes || decodedLength > maxJsonBytes) {
      const allowed = `allowed are ${maxTocBytes} and ${maxJsonBytes}`;
      throw new ShoalError('TOO_LARGE', `the TOC has ${length} bytes, ${decodedLength} decompressed; ${allowed}`);
    }
    if (offset < FRAME_HEADER_BYTES || offset + length > blob.size) {
      throw new ShoalError('INVALID_LAYER', `the TOC would be at ${offset}, outside the layer`);
    }
    const known = index?.digest === pin.coded ? index : undefined;
    const coded = known?.bytes ?? (await blob.read(offset, length, { signal }));
    const json = await this.#verifiedJson(coded, decodedLength, pin, signal);
    if (known?.bytes === undefined) known?.keep(coded);
    return content(json, {
      compressedSize: blob.size,
      dataEnd: offset - FRAME_HEADER_BYTES,
      maxEntries: this.#limits.maxEntries,
      signal,
    });
  }

  async #verifiedJson(coded: Uint8Array, length: number, pin: TocPin, signal: AbortSignal): Promise<Uint8Array> {
    if (pin.coded !== undefined) await check(coded, pin.coded, signal);
    let json: Uint8Array;
    try {
      json = await decodeExtent('zstd', coded, length, { signal });
    } catch (cause) {
      if (!hasCode(cause, 'CHUNK_CORRUPT')) throw cause;
      throw new ShoalError('INVALID_LAYER', `the TOC cannot be decompressed: ${cause.message}`, { cause });
    }
    if (pin.coded === undefined && pin.json !== undefined) await check(json, pin.json, signal);
    return json;
  }
}

/** Digest of the TOC's compressed bytes, as the annotations of the layer pin it. */
export function codedTocDigest({ annotations }: LayerDescriptor): string | undefined {
  const prefix = PREFIXES.find((each) => annotations[each + CHECKSUM] !== undefined);
  return prefix === undefined ? undefined : annotations[prefix + CHECKSUM];
}

async function readTail(blob: RangedBlob, signal: AbortSignal): Promise<Uint8Array> {
  const length = Math.min(ZSTDCHUNKED_FOOTER_BYTES, blob.size);
  return length === 0 ? new Uint8Array() : blob.read(blob.size - length, length, { signal });
}

function pinOf({ annotations }: LayerDescriptor): TocPin {
  const prefix = PREFIXES.find((each) => annotations[each + CHECKSUM] !== undefined);
  const json = annotations[TOC_DIGEST_ANNOTATION];
  if (prefix === undefined) {
    if (json === undefined) {
      throw new ShoalError('UNSUPPORTED_LAYER', `no annotation ${PREFIXES[0]}${CHECKSUM} to verify the TOC with`);
    }
    return { position: undefined, coded: undefined, json: sha256Digest(json) };
  }
  const text = annotations[prefix + POSITION];
  const position = text === undefined ? undefined : parseManifestPosition(text);
  if (position === undefined) {
    throw new ShoalError('INVALID_LAYER', `annotation ${prefix}${POSITION} names no place of a TOC`);
  }
  return { position, coded: sha256Digest(annotations[prefix + CHECKSUM]), json: undefined };
}

function sha256Digest(text: string | undefined): Digest {
  const digest = parseDigest(text);
  if (digestAlgorithm(digest) !== 'sha256') {
    throw new ShoalError('UNSUPPORTED_LAYER', `the TOC is pinned by ${digestAlgorithm(digest)}, expected sha256`);
  }
  return digest;
}

async function check(bytes: Uint8Array, digest: Digest, signal: AbortSignal): Promise<void> {
  if ((await hashInTurns(bytes, signal)) === digestHex(digest)) return;
  throw new ShoalError('INVALID_LAYER', `the TOC does not match the annotated digest ${digest}`);
}

async function content(
  json: Uint8Array,
  init: { compressedSize: number; dataEnd: number; maxEntries: number; signal: AbortSignal },
): Promise<LayerContent> {
  const tree = createTreeBuilder({ maxEntries: init.maxEntries });
  const stargz = new EstargzLayout();
  const frames = new ZstdchunkedLayout();
  // stargz tools write no end offsets, and frames that hold tar padding and headers after the data.
  let layout: EstargzLayout | ZstdchunkedLayout = frames;
  let isChosen = false;
  let landmark: ReturnType<EstargzLayout['addLandmark']> | undefined;
  await parseToc(
    json,
    (entry) => {
      if (!isChosen && entry.type === 'reg' && entry.size > 0) {
        isChosen = true;
        layout = entry.endOffset === 0 ? stargz : frames;
      }
      const name = entry.name.startsWith('./') ? entry.name.slice(2) : entry.name;
      if (layout === stargz && name === PREFETCH_LANDMARK) landmark = stargz.addLandmark(entry);
      else if (layout === stargz && name === NO_PREFETCH_LANDMARK) stargz.addLandmark(entry);
      else addEntry(tree, layout, entry);
    },
    { signal: init.signal },
  );
  const built = tree.build();
  if (layout === frames) return { tree: built, ...(await frames.build(built, init)) };
  const { chunks, prefetchBytes } = await stargz.build(built, { ...init, codec: 'zstd', landmark });
  return prefetchBytes > 0 ? { tree: built, chunks, prefetchBytes } : { tree: built, chunks };
}

function addEntry(tree: TreeBuilder, layout: EstargzLayout | ZstdchunkedLayout, entry: TocEntry): void {
  if (entry.type === 'chunk') layout.addChunk(entry);
  else if (entry.type === 'hardlink') tree.addHardLink(entry.name, entry.linkName);
  else {
    const node = inodeOf(entry, entry.type);
    tree.add(entry.name, node);
    if (node.kind === 'file') layout.addFile(entry, node);
  }
}
