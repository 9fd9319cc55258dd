import { type Digest, sha256 } from '../../src/core/digest.ts';
import { fileEdges } from '../../src/core/policy/file-edges.ts';
import type { Random } from '../engine/random.ts';
import type { ImageSpec } from '../scenario/scenario.ts';

/** A chunk of an image; chunks with equal content have the same `content`, whatever image they are in. */
export interface SimChunk {
  /** Position among all chunks of the image. */
  readonly index: number;
  readonly layer: number;
  /** Row in the layer's chunk table. */
  readonly row: number;
  /** Number of its content over all images of the scenario, from 0. */
  readonly content: number;
  readonly digest: Digest;
  readonly bytes: number;
  readonly compressedBytes: number;
  /** First byte on the layer's device. */
  readonly offset: number;
  /** Chunks of the daemon that it stands for: large runs move neighbouring chunks together (`unitChunks`). */
  readonly count: number;
}

/** A layer of an image. */
export interface SimLayer {
  /** Position in the image, the bottom first. */
  readonly index: number;
  readonly digest: Digest;
  /** Number of the layer over all images; the same layer in two images has the same one. */
  readonly blob: number;
  /** Chunks [first, end) of the image. */
  readonly first: number;
  readonly end: number;
  readonly bytes: number;
  readonly compressedBytes: number;
  /** Where its large files begin and end, bytes of the device; empty where files are not known. */
  readonly edges: readonly number[];
}

/** An image as the simulator sees it. */
export interface SimImage {
  readonly name: string;
  readonly layers: readonly SimLayer[];
  readonly chunks: readonly SimChunk[];
  readonly bytes: number;
  readonly compressedBytes: number;
  /** What a start reads, in the order all nodes have in common: chunk positions of files, each read to its end. */
  readonly files: readonly (readonly number[])[];
  /** Distinct bytes a start reads. */
  readonly readBytes: number;
  /** The same as the registry sends them. */
  readonly readCompressedBytes: number;
  readonly reads: ReadSource;
}

/** Where the reads of a start come from: made up, or recorded. */
export type ReadSource =
  | { readonly kind: 'synthetic'; readonly skew: number; readonly thinkMs: number; readonly readers: number }
  | {
      readonly kind: 'trace';
      readonly plan: ReadPlan;
      /** Chunk positions that were fetched ahead when the chunk at this position was read. */
      readonly ahead: ReadonlyMap<number, readonly number[]>;
    };

/** The cold reads of one start. Arrays of equal length, one entry a read. */
export interface ReadPlan {
  /** Chunk position in the image. */
  readonly chunk: Uint32Array;
  /** It begins when so many reads of this start are answered … */
  readonly after: Uint32Array;
  /** … and the container worked for so long, ms. */
  readonly thinkMs: Float32Array;
  /** Processors that it keeps busy meanwhile. */
  readonly cores: number;
}

/** Numbers contents and layers over all images of a scenario. */
export interface Catalog {
  content(digest: Digest): number;
  blob(digest: Digest): number;
  readonly contents: number;
  readonly blobs: number;
}

/** An empty catalog. */
export function createCatalog(): Catalog {
  const contents = new Map<Digest, number>();
  const blobs = new Map<Digest, number>();
  const numberOf = (known: Map<Digest, number>, digest: Digest): number => {
    const found = known.get(digest) ?? known.size;
    known.set(digest, found);
    return found;
  };
  return {
    content: (digest) => numberOf(contents, digest),
    blob: (digest) => numberOf(blobs, digest),
    get contents() {
      return contents.size;
    },
    get blobs() {
      return blobs.size;
    },
  };
}

const KIB = 1024;

/** An image made to measure; `unit` chunks travel together. `base` is the image it shares layers and chunks with. */
export function makeImage(
  components: { catalog: Catalog; random: Random },
  init: { name: string; spec: ImageSpec; unit: number; base?: SimImage | undefined },
): SimImage {
  const { name, spec, unit, base } = init;
  const chunkBytes = spec.chunkKib * KIB;
  const perLayer = Math.max(1, Math.round((spec.sizeMib * KIB * KIB) / spec.layers / chunkBytes));
  const perFile = Math.max(1, Math.round((spec.fileKib * KIB) / (unit * chunkBytes)));
  const chunks: SimChunk[] = [];
  const layers: SimLayer[] = [];
  for (let index = 0; index < spec.layers; index += 1) {
    const isShared = index < spec.sharedLayers;
    const former = base?.layers[index];
    const first = chunks.length;
    const rows = isShared && former !== undefined ? former.end - former.first : Math.ceil(perLayer / unit);
    for (let row = 0; row < rows; row += 1) {
      // Spread evenly: of any run of chunks about the same part is shared.
      const takes = isShared || Math.floor((row + 1) * spec.shared) > Math.floor(row * spec.shared);
      const twin = takes && former !== undefined ? base?.chunks[former.first + row] : undefined;
      const isInside = twin !== undefined && former !== undefined && twin.index < former.end;
      const digest = isInside ? twin.digest : sha256(`${name}/${index}/${row}`);
      const count = isInside ? twin.count : Math.min(unit, perLayer - row * unit);
      const bytes = isInside ? twin.bytes : count * chunkBytes;
      chunks.push({
        index: chunks.length,
        layer: index,
        row,
        content: components.catalog.content(digest),
        digest,
        bytes,
        compressedBytes: isInside ? twin.compressedBytes : Math.max(1, Math.round(bytes * spec.compressed)),
        offset: row * unit * chunkBytes,
        count,
      });
    }
    const digest = isShared && former !== undefined ? former.digest : sha256(`layer ${name}/${index}`);
    layers.push(layerOf(components.catalog, { index, digest, first, chunks, perFile }));
  }
  const files = chooseFiles(components.random, layers, { ...spec, perFile });
  const reads = { kind: 'synthetic', skew: spec.orderSkew, thinkMs: spec.thinkMs, readers: spec.readers } as const;
  return imageOf({ name, layers, chunks, files, reads });
}

/** The layer over the last chunks of `chunks`, `perFile` to a file where that is known. */
export function layerOf(
  catalog: Catalog,
  init: { index: number; digest: Digest; first: number; chunks: readonly SimChunk[]; perFile?: number },
): SimLayer {
  const own = init.chunks.slice(init.first);
  return {
    index: init.index,
    digest: init.digest,
    blob: catalog.blob(init.digest),
    first: init.first,
    end: init.chunks.length,
    bytes: sum(own, ({ bytes }) => bytes),
    compressedBytes: sum(own, ({ compressedBytes }) => compressedBytes),
    edges: init.perFile === undefined ? [] : fileEdges(filesOf(own, init.perFile)),
  };
}

function* filesOf(chunks: readonly SimChunk[], perFile: number): Generator<{ start: number; end: number }> {
  let start = 0;
  for (let at = 0; at < chunks.length; at += perFile) {
    const end = start + sum(chunks.slice(at, at + perFile), ({ bytes }) => bytes);
    yield { start, end };
    start = end;
  }
}

/** Adds up what follows from the parts. */
export function imageOf(parts: Pick<SimImage, 'name' | 'layers' | 'chunks' | 'files' | 'reads'>): SimImage {
  const read = new Map<number, SimChunk>();
  for (const file of parts.files) {
    for (const at of file) {
      const chunk = parts.chunks[at] as SimChunk;
      read.set(chunk.content, chunk);
    }
  }
  return {
    ...parts,
    bytes: sum(parts.layers, ({ bytes }) => bytes),
    compressedBytes: sum(parts.layers, ({ compressedBytes }) => compressedBytes),
    readBytes: sum(read.values(), ({ bytes }) => bytes),
    readCompressedBytes: sum(read.values(), ({ compressedBytes }) => compressedBytes),
  };
}

/** Cuts the layers into files and takes some at random until enough bytes are read; their order is the image's own. */
function chooseFiles(
  random: Random,
  layers: readonly SimLayer[],
  { perFile, readShare }: { perFile: number; readShare: number },
): number[][] {
  const files: number[][] = [];
  let total = 0;
  for (const { first, end } of layers) {
    total += end - first;
    for (let at = first; at < end; at += perFile) {
      files.push(Array.from({ length: Math.min(perFile, end - at) }, (_, step) => at + step));
    }
  }
  random.shuffle(files);
  const wanted = Math.max(1, Math.round(total * readShare));
  const chosen: number[][] = [];
  let taken = 0;
  for (const file of files) {
    if (taken >= wanted) break;
    const part = file.slice(0, wanted - taken);
    chosen.push(part);
    taken += part.length;
  }
  return chosen;
}

function sum<T>(items: Iterable<T>, of: (item: T) => number): number {
  let total = 0;
  for (const item of items) total += of(item);
  return total;
}
