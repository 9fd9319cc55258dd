import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import { parseDigest } from '../../../src/core/digest.ts';
import { NYDUS } from '../../../src/image/readers/rafs/nydus-labels.ts';
import { tarHeader } from '../estargz-image.ts';
import type { FixtureLayer } from '../oci-layout.ts';
import { BlobWriter, DEFAULT_OPTIONS, type RafsOptions, type WrittenBlob } from './blob-writer.ts';
import { type RafsEntry, TYPE } from './entries.ts';
import { bootstrapV5 } from './v5-writer.ts';
import { bootstrapV6 } from './v6-writer.ts';

/** A file's data: chunk numbers in its blob. */
export type FileChunks = ReadonlyMap<RafsEntry, readonly number[]>;

/** The bootstrap layer; `diffId` is the digest of its tar. */
export type BootstrapLayer = FixtureLayer & { readonly diffId: string };

/** A Nydus image: the layers of its manifest, data first. */
export interface RafsImage {
  readonly blobs: readonly (FixtureLayer & { readonly written: WrittenBlob })[];
  readonly bootstrap: BootstrapLayer;
  /** The bootstrap itself. */
  readonly boot: Buffer;
}

/** Writes an image as the Nydus format documents have it (formats §2); `change` may damage the bootstrap. */
export function rafsImage(
  entries: readonly RafsEntry[],
  options: Partial<RafsOptions> = {},
  change: (boot: Buffer) => Buffer = (boot) => boot,
): RafsImage {
  const all = { ...DEFAULT_OPTIONS, ...options };
  const writers: BlobWriter[] = [];
  const files = new Map<RafsEntry, number[]>();
  const ofInode = new Map<string, number[]>();
  for (const entry of entries) {
    if ((entry.mode & 0o170000) !== TYPE.file) continue;
    const known = entry.inode === undefined ? undefined : ofInode.get(entry.inode);
    const number = entry.blob ?? 0;
    while (writers.length <= number) writers.push(new BlobWriter(writers.length, all));
    const chunks =
      known ??
      cut(entry.content ?? new Uint8Array(), all.chunkSize).map((bytes) => writers[number]?.add(bytes) as number);
    files.set(entry, chunks);
    if (entry.inode !== undefined) ofInode.set(entry.inode, chunks);
  }
  const blobs = writers.map((writer) => writer.finish());
  const made = all.version === 6 ? bootstrapV6(entries, files, blobs, all) : bootstrapV5(entries, files, blobs, all);
  const boot = change(made);
  return { boot, bootstrap: bootstrapLayer(boot, all.version), blobs: blobs.map(dataLayer) };
}

/** The bootstrap layer around a bootstrap. */
export function bootstrapLayer(boot: Buffer, version: number): BootstrapLayer {
  const padding = Buffer.alloc(((512 - (boot.byteLength % 512)) % 512) + 1024);
  const tar = Buffer.concat([
    tarHeader('image/', 0, '5'),
    tarHeader('image/image.boot', boot.byteLength),
    boot,
    padding,
  ]);
  const bytes = gzipSync(tar, { level: 1 });
  return {
    bytes,
    diffId: digestOf(tar),
    descriptor: {
      digest: digestOf(bytes),
      size: bytes.byteLength,
      mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
      annotations: { [NYDUS.bootstrap]: 'true', [NYDUS.fsVersion]: String(version) },
    },
  };
}

function dataLayer(written: WrittenBlob): FixtureLayer & { written: WrittenBlob } {
  const { bytes, id } = written;
  const annotations = { [NYDUS.blob]: 'true' };
  const digest = parseDigest(`sha256:${id}`);
  return {
    written,
    bytes,
    descriptor: { digest, size: bytes.byteLength, mediaType: NYDUS.blobMediaType, annotations },
  };
}

function digestOf(bytes: Uint8Array): ReturnType<typeof parseDigest> {
  return parseDigest(`sha256:${createHash('sha256').update(bytes).digest('hex')}`);
}

function cut(content: Uint8Array, chunkSize: number): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  for (let at = 0; at < content.byteLength; at += chunkSize) chunks.push(content.subarray(at, at + chunkSize));
  return chunks;
}
