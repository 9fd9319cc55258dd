import { type Digest, parseDigest } from '../../core/digest.ts';
import { ShoalError } from '../../errors.ts';
import type { LayerContent, LayerDescriptor, LayerIndexBytes, LayerReader, RangedBlob } from '../layer-reader.ts';
import { createTreeBuilder, type TreeBuilder } from '../tree-builder.ts';
import { type EstargzFooter, FOOTER_BYTES, parseEstargzFooter } from './estargz-footer.ts';
import { EstargzLayout } from './estargz-layout.ts';
import { parseToc, type TocEntry } from './estargz-toc.ts';
import { decodeTocMember } from './estargz-toc-member.ts';
import { inodeOf } from './toc-inode.ts';

/** Annotation with the digest of the TOC JSON: what the whole layer is verified through. */
export const TOC_DIGEST_ANNOTATION = 'containerd.io/snapshot/stargz/toc.digest';

/** Files below it in the blob are worth fetching before they are asked for. */
export const PREFETCH_LANDMARK = '.prefetch.landmark';
/** Nothing is. */
export const NO_PREFETCH_LANDMARK = '.no.prefetch.landmark';

/** How large a TOC may be. */
export interface EstargzLimits {
  /** JSON text, bytes. 100,000 entries take about 35 MiB. */
  readonly maxJsonBytes: number;
  /** Compressed TOC, bytes; gzip makes JSON about ten times smaller. */
  readonly maxTocBytes: number;
  /** Entries; a million costs about 500 MB of heap while the tree is made. */
  readonly maxEntries: number;
}

/** What is accepted unless the configuration says otherwise. */
export const DEFAULT_LIMITS: EstargzLimits = {
  maxJsonBytes: 128 * 1024 * 1024,
  maxTocBytes: 64 * 1024 * 1024,
  maxEntries: 1_000_000,
};

/**
 * Reads eStargz layers (stargz-snapshotter docs/estargz.md) that carry the TOC digest annotation. `read` throws
 * UNSUPPORTED_LAYER (no annotation, no footer, external TOC), TOO_LARGE, INVALID_LAYER or INVALID_CHUNK_TABLE.
 */
export function createEstargzReader(init: { limits?: Partial<EstargzLimits> } = {}): LayerReader {
  return new EstargzReader({ ...DEFAULT_LIMITS, ...init.limits });
}

class EstargzReader implements LayerReader {
  readonly format = 'estargz';
  readonly #limits: EstargzLimits;

  constructor(limits: EstargzLimits) {
    this.#limits = limits;
  }

  async probe(layer: LayerDescriptor, blob: RangedBlob, { signal }: { signal: AbortSignal }): Promise<boolean> {
    if (layer.annotations[TOC_DIGEST_ANNOTATION] === undefined) return false;
    // Other formats carry the annotation too (zstd:chunked made by stargz tools); the footer decides.
    return (await readFooter(blob, signal)) !== undefined;
  }

  async read(
    layer: LayerDescriptor,
    blob: RangedBlob,
    { signal, index }: { signal: AbortSignal; index?: LayerIndexBytes },
  ): Promise<LayerContent> {
    const annotated = layer.annotations[TOC_DIGEST_ANNOTATION];
    if (annotated === undefined) {
      throw new ShoalError('UNSUPPORTED_LAYER', `no annotation ${TOC_DIGEST_ANNOTATION} to verify an eStargz TOC with`);
    }
    const digest = parseDigest(annotated);
    const footer = await readFooter(blob, signal);
    if (footer === undefined) throw new ShoalError('UNSUPPORTED_LAYER', 'the layer has no eStargz footer');
    if (footer.kind === 'external') {
      throw new ShoalError('UNSUPPORTED_LAYER', 'eStargz with an external TOC (STARGZEXTERNALTOC) is not supported');
    }
    const tocBytes = footer.tocEnd - footer.tocOffset;
    if (tocBytes > this.#limits.maxTocBytes) {
      throw new ShoalError(
        'TOO_LARGE',
        `the TOC has ${tocBytes} compressed bytes, allowed are ${this.#limits.maxTocBytes}`,
      );
    }
    const known = index?.digest === digest ? index : undefined;
    const json = known?.bytes ?? (await this.#readToc(blob, footer.tocOffset, tocBytes, { digest, signal }));
    if (known?.bytes === undefined) known?.keep(json);
    return this.#content(json, { compressedSize: blob.size, dataEnd: footer.tocOffset, signal });
  }

  async #readToc(
    blob: RangedBlob,
    offset: number,
    length: number,
    { digest, signal }: { digest: Digest; signal: AbortSignal },
  ): Promise<Uint8Array> {
    const member = await blob.read(offset, length, { signal });
    return await decodeTocMember(member, { digest, maxJsonBytes: this.#limits.maxJsonBytes, signal });
  }

  async #content(
    json: Uint8Array,
    init: { compressedSize: number; dataEnd: number; signal: AbortSignal },
  ): Promise<LayerContent> {
    const tree = createTreeBuilder({ maxEntries: this.#limits.maxEntries });
    const layout = new EstargzLayout();
    let landmark: { memberOffset: number; innerOffset: number } | undefined;
    await parseToc(
      json,
      (entry) => {
        const name = entry.name.startsWith('./') ? entry.name.slice(2) : entry.name;
        if (name === PREFETCH_LANDMARK) landmark = layout.addLandmark(entry);
        else if (name === NO_PREFETCH_LANDMARK) layout.addLandmark(entry);
        else addEntry(tree, layout, entry);
      },
      { signal: init.signal },
    );
    const built = tree.build();
    const { chunks, prefetchBytes } = await layout.build(built, { ...init, codec: 'gzip', landmark });
    return prefetchBytes > 0 ? { tree: built, chunks, prefetchBytes } : { tree: built, chunks };
  }
}

async function readFooter(blob: RangedBlob, signal: AbortSignal): Promise<EstargzFooter | undefined> {
  const length = Math.min(FOOTER_BYTES, blob.size);
  if (length === 0) return undefined;
  return parseEstargzFooter(await blob.read(blob.size - length, length, { signal }), blob.size);
}

function addEntry(tree: TreeBuilder, layout: EstargzLayout, entry: TocEntry): void {
  if (entry.type === 'chunk') layout.addChunk(entry);
  else if (entry.type === 'hardlink') tree.addHardLink(entry.name, entry.linkName);
  else {
    const node = inodeOf(entry, entry.type);
    tree.add(entry.name, node);
    if (node.kind === 'file') layout.addFile(entry, node);
  }
}
