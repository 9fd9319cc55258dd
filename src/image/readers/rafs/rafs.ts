import { hash } from 'node:crypto';
import type { ChunkTable } from '../../../core/chunk-table.ts';
import { ChunkTableBuilder } from '../../../core/chunk-table-builder.ts';
import { type Digest, digestAlgorithm, digestHex, parseDigest, sha256 } from '../../../core/digest.ts';
import { hasCode, ShoalError } from '../../../errors.ts';
import { showPath } from '../../entry-rules.ts';
import type {
  DeviceContent,
  LayerContent,
  LayerDescriptor,
  LayerReader,
  OpenBlob,
  RangedBlob,
} from '../../layer-reader.ts';
import type { ByteString, DirNode, FileNode, LayerTree } from '../../layer-tree.ts';
import { cacheTail } from '../tail-cache.ts';
import { BinaryReader } from './binary.ts';
import { type BlobIndex, readBlobIndex } from './blob-index.ts';
import { bootstrapFile } from './bootstrap-file.ts';
import { coversExactly, deviceTable } from './device-table.ts';
import { FEATURE, invalidRafs, type RafsBlob, type RafsBootstrap, type RafsChunks } from './model.ts';
import { isNydusBootstrap, NYDUS } from './nydus-labels.ts';
import { parseV5 } from './v5.ts';
import { isV5 } from './v5-super.ts';
import { parseV6 } from './v6.ts';
import { isErofs } from './v6-super.ts';

/** How large a bootstrap may be. */
export interface RafsLimits {
  /** The layer, bytes; it compresses to about a quarter. */
  readonly maxLayerBytes: number;
  /** Its tar, bytes: 100,000 files take about 30 MiB. */
  readonly maxBootstrapBytes: number;
  /** Files, directories and so on. */
  readonly maxEntries: number;
}

const DEFAULT_LIMITS: RafsLimits = {
  maxLayerBytes: 64 * 1024 * 1024,
  maxBootstrapBytes: 256 * 1024 * 1024,
  maxEntries: 1_000_000,
};

/** Magic of a Nydus "fs-version 7" blob footer and index. */
const V7_MAGICS = ['LPFOOTER', 'LPBLMETA'];

/**
 * Reads the bootstrap layers of Nydus images, RAFS v6 and v5 (formats §2): one tree over all the image's blobs, whose
 * indexes are read as well. `read` throws UNSUPPORTED_LAYER (naming what is not supported), INVALID_LAYER, TOO_LARGE,
 * INVALID_CHUNK_TABLE or what opening a blob throws.
 */
export function createRafsReader(init: { limits?: Partial<RafsLimits> } = {}): LayerReader {
  return new RafsReader({ ...DEFAULT_LIMITS, ...init.limits });
}

class RafsReader implements LayerReader {
  readonly format = 'nydus';
  readonly #limits: RafsLimits;

  constructor(limits: RafsLimits) {
    this.#limits = limits;
  }

  async probe(layer: LayerDescriptor): Promise<boolean> {
    return isNydusBootstrap(layer);
  }

  async read(
    layer: LayerDescriptor,
    blob: RangedBlob,
    { signal, openBlob }: { signal: AbortSignal; openBlob?: OpenBlob },
  ): Promise<LayerContent> {
    refuseByAnnotation(layer);
    if (openBlob === undefined)
      throw new ShoalError('UNSUPPORTED_LAYER', 'the blobs of a Nydus image cannot be read here');
    const bootstrap = await this.#bootstrap(layer, blob, signal);
    const used = usedBlobs(bootstrap.tree);
    const devices: DeviceContent[] = [];
    const numbers = new Map<number, number>();
    for (const rafs of bootstrap.blobs) {
      if (!used.has(rafs.index)) continue;
      numbers.set(rafs.index, devices.length);
      devices.push(await readDevice(rafs, bootstrap.chunks[rafs.index], openBlob, signal));
    }
    moveFiles(bootstrap.tree, numbers, devices);
    return { tree: bootstrap.tree, chunks: emptyTable(blob.size), devices };
  }

  async #bootstrap(layer: LayerDescriptor, blob: RangedBlob, signal: AbortSignal): Promise<RafsBootstrap> {
    const { maxLayerBytes, maxBootstrapBytes, maxEntries } = this.#limits;
    if (blob.size > maxLayerBytes) {
      throw new ShoalError('TOO_LARGE', `the bootstrap layer has ${blob.size} bytes, allowed are ${maxLayerBytes}`);
    }
    const bytes = blob.size === 0 ? new Uint8Array() : await blob.read(0, blob.size, { signal });
    if (hash(digestAlgorithm(layer.digest), bytes, 'hex') !== digestHex(layer.digest)) {
      throw new ShoalError('INVALID_LAYER', 'the bootstrap layer does not match its digest');
    }
    const image = new BinaryReader(await bootstrapFile(bytes, { maxBytes: maxBootstrapBytes }), 'bootstrap');
    signal.throwIfAborted();
    refuseV7(image);
    if (isErofs(image)) return parseV6(image, { maxEntries, signal });
    if (isV5(image)) return parseV5(image, { maxEntries, signal });
    throw invalidRafs('it is neither RAFS v6 nor v5');
  }
}

function refuseByAnnotation({ annotations }: LayerDescriptor): void {
  const version = annotations[NYDUS.fsVersion];
  if (version !== undefined && version !== '5' && version !== '6') {
    throw new ShoalError(
      'UNSUPPORTED_LAYER',
      `Nydus fs-version ${JSON.stringify(version.slice(0, 20))} is not supported`,
    );
  }
  if (annotations[NYDUS.encrypted] !== undefined) {
    throw new ShoalError('UNSUPPORTED_LAYER', 'the Nydus image is encrypted');
  }
}

function refuseV7(image: BinaryReader): void {
  const places = [0, image.size - 4096].filter((at) => at >= 0 && at + 8 <= image.size);
  if (places.some((at) => V7_MAGICS.includes(image.text(at, 8)))) {
    throw new ShoalError('UNSUPPORTED_LAYER', 'Nydus fs-version 7 is not supported');
  }
}

/** The chunk table of one blob, whose index is read where it says more than the bootstrap. */
async function readDevice(
  rafs: RafsBlob,
  chunks: RafsChunks | undefined,
  openBlob: OpenBlob,
  signal: AbortSignal,
): Promise<DeviceContent> {
  const digest = parseDigest(`sha256:${rafs.id}`);
  const blob = cacheTail(await openBlob(digest, { signal }));
  const index = await readIndex(rafs, chunks, { data: blob, openBlob, signal });
  const table = deviceTable(rafs, { index, chunks, blobSize: blob.size });
  if ((rafs.features & FEATURE.zran) === 0) return { digest, size: blob.size, ...table };
  // The blob is a layer of the image's plain form, which this node may have as well, with a device of its own.
  return { digest: sha256(`nydus zran ${digest}`), remote: digest, size: blob.size, ...table };
}

async function readIndex(
  rafs: RafsBlob,
  chunks: RafsChunks | undefined,
  { data, openBlob, signal }: { data: RangedBlob; openBlob: OpenBlob; signal: AbortSignal },
): Promise<BlobIndex | undefined> {
  const needed = chunks === undefined || (rafs.features & (FEATURE.batch | FEATURE.zran)) !== 0;
  const hasToc = (rafs.features & FEATURE.hasToc) !== 0 && rafs.toc.length > 0;
  if (!needed && !hasToc) return undefined;
  try {
    const elsewhere = (rafs.features & (FEATURE.separate | FEATURE.zran)) !== 0;
    const place = elsewhere ? cacheTail(await openBlob(metaDigest(rafs), { signal })) : data;
    return await readBlobIndex(rafs, place, { signal });
  } catch (error) {
    // The bootstrap, which is verified, knows these chunks itself.
    if (needed || !hasCode(error, 'INVALID_LAYER')) throw error;
    return undefined;
  }
}

function metaDigest(rafs: RafsBlob): Digest {
  return parseDigest(`sha256:${Buffer.from(rafs.metaBlob.digest).toString('hex')}`);
}

function usedBlobs(tree: LayerTree): Set<number> {
  const used = new Set<number>();
  for (const { node } of filesOf(tree.root)) for (const { device } of node.extents) used.add(device);
  return used;
}

/** Numbers devices as they are listed, after checking that all data of each file is some chunk's. */
function moveFiles(tree: LayerTree, numbers: ReadonlyMap<number, number>, devices: readonly DeviceContent[]): void {
  const done = new Set<FileNode>();
  for (const { path, node } of filesOf(tree.root)) {
    if (done.has(node)) continue;
    done.add(node);
    node.extents = node.extents.map((extent) => {
      const device = numbers.get(extent.device) as number;
      const { chunks } = devices[device] as DeviceContent;
      if (!coversExactly(chunks, extent.deviceOffset, extent.length)) {
        throw invalidRafs(
          `${showPath(path)} has data at ${extent.deviceOffset} of blob ${extent.device}, where no chunk is`,
        );
      }
      return { ...extent, device };
    });
  }
}

function* filesOf(root: DirNode): Generator<{ path: ByteString; node: FileNode }> {
  const open: { dir: DirNode; path: string }[] = [{ dir: root, path: '' }];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    for (const [name, child] of next.dir.children) {
      const path = `${next.path}/${name}` as ByteString;
      if (child.kind === 'dir') open.push({ dir: child, path });
      else if (child.kind === 'file') yield { path, node: child };
    }
  }
}

function emptyTable(compressedSize: number): ChunkTable {
  return new ChunkTableBuilder({ compressedSize }).build();
}
