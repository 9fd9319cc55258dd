import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, test } from 'node:test';
import { type Digest, parseDigest, sha256 } from '../../../src/core/digest.ts';
import { ShoalError } from '../../../src/errors.ts';
import { decodeExtent } from '../../../src/image/codec.ts';
import type { DeviceContent, LayerContent, LayerDescriptor, OpenBlob } from '../../../src/image/layer-reader.ts';
import { byteString, type FileNode, type TreeNode } from '../../../src/image/layer-tree.ts';
import { readWindow } from '../../../src/image/pass/windows.ts';
import { readLayer } from '../../../src/image/readers/index.ts';
import { NYDUS } from '../../../src/image/readers/rafs/nydus-labels.ts';
import { verifyChunk } from '../../../src/store/verify-chunk.ts';
import { MemoryBlob } from '../../fakes/memory-blob.ts';
import type { FixtureLayer } from '../../fakes/oci-layout.ts';
import type { RafsOptions } from '../../fakes/rafs/blob-writer.ts';
import { type RafsEntry, TYPE } from '../../fakes/rafs/entries.ts';
import { bootstrapLayer, type RafsImage, rafsImage } from '../../fakes/rafs/image.ts';
import { mixed, sampleEntries } from '../../fakes/rafs/sample.ts';
import { zranImage } from '../../fakes/rafs/zran-image.ts';

const signal = AbortSignal.timeout(120_000);

type Blobs = ReadonlyMap<Digest, Uint8Array>;

function blobsOf({ blobs }: Pick<RafsImage, 'blobs'>): Blobs {
  return new Map(blobs.map(({ descriptor, bytes }) => [descriptor.digest, bytes]));
}

function opener(blobs: Blobs): OpenBlob {
  return async (digest) => {
    const bytes = blobs.get(digest);
    if (bytes === undefined) throw new ShoalError('SOURCE_FAILED', `no blob ${digest}`);
    return new MemoryBlob(bytes, digest);
  };
}

async function read(layer: FixtureLayer, blobs: Blobs): Promise<LayerContent> {
  const { descriptor, bytes } = layer;
  const init = { signal, openBlob: opener(blobs) };
  const { format, content } = await readLayer(descriptor, new MemoryBlob(bytes, descriptor.digest), init);
  assert.equal(format, 'nydus');
  return content;
}

function slice(bytes: Uint8Array | undefined, from: number, length: number): Uint8Array {
  return (bytes ?? new Uint8Array()).subarray(from, from + length);
}

async function fill(
  { digest, remote = digest, size, chunks, windows }: DeviceContent,
  blobs: Blobs,
): Promise<Uint8Array> {
  const bytes = blobs.get(remote) as Uint8Array;
  assert.equal(size, bytes.byteLength);
  const device = new Uint8Array(chunks.deviceSize);
  for (let index = 0; index < chunks.count; index += 1) {
    const row = chunks.row(index);
    const extent = chunks.extent(row.extent);
    const coded = bytes.subarray(extent.offset, extent.offset + extent.length);
    const { bits = 0, window: at } = extent.checkpoint ?? {};
    const window =
      at === undefined ? undefined : await readWindow(at, async (from, length) => slice(windows, from, length));
    const decoded = await decodeExtent(extent.codec, coded, extent.decodedLength, { signal, start: { bits, window } });
    const chunk = await verifyChunk(row, decoded.subarray(row.innerOffset, row.innerOffset + row.length));
    device.set(chunk.bytes, row.deviceOffset);
  }
  return device;
}

function contentOf(file: FileNode, devices: readonly Uint8Array[]): Buffer {
  const content = Buffer.alloc(file.size);
  for (const { fileOffset, length, device, deviceOffset } of file.extents) {
    content.set((devices[device] as Uint8Array).subarray(deviceOffset, deviceOffset + length), fileOffset);
  }
  return content;
}

function nodeAt(content: LayerContent, path: string): TreeNode {
  let node: TreeNode | undefined = content.tree.root;
  for (const part of path.split('/').filter((each) => each !== '')) {
    node = node?.kind === 'dir' ? node.children.get(part as never) : undefined;
  }
  assert.ok(node !== undefined, path);
  return node;
}

/** The image read back is the image written. */
async function comparesEqual(
  entries: readonly RafsEntry[],
  image: Pick<RafsImage, 'bootstrap'>,
  blobs: Blobs,
): Promise<LayerContent> {
  const content = await read(image.bootstrap, blobs);
  const devices = await Promise.all((content.devices ?? []).map((device) => fill(device, blobs)));
  const ofInode = new Map<string, TreeNode>();
  for (const entry of entries) {
    const node = nodeAt(content, entry.path);
    assert.ok(node.kind !== 'whiteout');
    const first = entry.inode === undefined ? undefined : ofInode.get(entry.inode);
    if (first !== undefined) {
      assert.equal(node, first);
      continue;
    }
    if (entry.inode !== undefined) ofInode.set(entry.inode, node);
    const { mode, uid, gid, mtimeSec, mtimeNsec } = node;
    assert.deepEqual(
      [mode, uid, gid, mtimeSec, mtimeNsec],
      [entry.mode & 0o7777, entry.uid ?? 0, entry.gid ?? 0, entry.mtimeSec ?? 0, entry.mtimeNsec ?? 0],
      entry.path,
    );
    const xattrs = new Map([...(node.xattrs ?? [])].map(([name, value]) => [name as string, Buffer.from(value)]));
    assert.deepEqual(xattrs, new Map([...(entry.xattrs ?? [])].map(([name, value]) => [name, Buffer.from(value)])));
    if (node.kind === 'file')
      assert.equal(Buffer.compare(contentOf(node, devices), entry.content ?? Buffer.alloc(0)), 0, entry.path);
    if (node.kind === 'symlink') assert.equal(node.target, entry.target);
    if (node.kind === 'char')
      assert.deepEqual([node.major, node.minor], [(entry.rdev ?? 0) >> 8, (entry.rdev ?? 0) & 0xff]);
  }
  return content;
}

const MATRIX: readonly Partial<RafsOptions>[] = [
  {},
  { toc: false },
  { chunkTable: false },
  { compressor: 'none' },
  { compressor: 'lz4_block', digester: 'sha256', metaCompressor: 'lz4_block' },
  { compressor: 'gzip', chunkSize: 0x1000 },
  { compressor: 'zstd', chunkSize: 0x1000000, metaCompressor: 'zstd' },
  { chunkInfoV2: true, chunkSize: 0x10000 },
  { chunkInfoV2: true, batchSize: 0x20000 },
  { chunkInfoV2: true, batchSize: 0x20000, toc: false, compressor: 'lz4_block' },
  { chunkInfoV2: true, batchSize: 0x20000, chunkTable: false, compressor: 'none' },
  { version: 5 },
  { version: 5, aligned: false, compressor: 'lz4_block', digester: 'sha256' },
  { version: 5, aligned: false, compressor: 'gzip', chunkSize: 0x1000 },
  { version: 5, compressor: 'none', chunkSize: 0x1000000 },
];

describe('RAFS reader', () => {
  for (const options of MATRIX) {
    test(`gives every file of an image with ${JSON.stringify(options)}`, async () => {
      const entries = sampleEntries();
      const image = rafsImage(entries, options);
      const content = await comparesEqual(entries, image, blobsOf(image));
      assert.equal(content.devices?.length, 2);
      assert.equal(content.chunks.count, 0);
    });
  }

  test('a real bootstrap of nydus 2.2 and its blob give the files whole', async () => {
    const base = new URL('../../fixtures/nydus/', import.meta.url);
    const boot = await readFile(new URL('rafs-v6-2.2.boot', base));
    const bytes = await readFile(new URL('rafs-v6-2.2.blob', base));
    const digest = parseDigest('sha256:be7d77eeb719f70884758d1aa800ed0fb09d701aaec469964e9d54325f0d5fef');
    const blobs = new Map([[digest, bytes]]);
    const content = await read(bootstrapLayer(boot, 6), blobs);
    const [device] = content.devices ?? [];
    assert.equal(device?.chunks.algorithm, 'blake3');
    const devices = [await fill(device as DeviceContent, blobs)];
    for (const [name, size] of [
      ['lib.rs', 16931],
      ['sync_io.rs', 13400],
    ] as const) {
      const text = contentOf(nodeAt(content, name) as FileNode, devices).toString();
      assert.equal(text.length, size);
      assert.match(text, /^\/\/ Copyright/);
    }
  });

  test('an image that refers to a tar.gz is read from there, by checkpoints', async () => {
    const entries = sampleEntries()
      .filter(({ inode }) => inode === undefined)
      .map((entry) => ({ ...entry, blob: 0 }));
    const { bootstrap, data, reference } = zranImage(entries);
    const blobs = new Map([data, reference].map(({ digest, bytes }) => [digest, bytes]));
    const content = await comparesEqual(entries, { bootstrap }, blobs);
    const [device] = content.devices ?? [];
    assert.equal(device?.remote, data.digest);
    // the same blob, as a layer of the plain image, may have a device of its own
    assert.notEqual(device?.digest, data.digest);
    assert.ok((device?.windows?.byteLength ?? 0) > 0);
  });

  test('the chunks of a blob are the same whatever bootstrap they are read for', async () => {
    const entries = sampleEntries();
    const whole = rafsImage(entries);
    const { devices = [] } = await read(whole.bootstrap, blobsOf(whole));
    const bare = rafsImage(entries, { chunkTable: false });
    const { devices: same = [] } = await read(bare.bootstrap, blobsOf(bare));
    assert.deepEqual(
      devices.map(({ chunks }) => chunks.columns.digests),
      same.map(({ chunks }) => chunks.columns.digests),
    );
  });

  test('a blob that no file lies on is not asked for', async () => {
    const entries = sampleEntries().filter(({ blob }) => blob !== 1);
    const image = rafsImage([...entries, { path: 'none', mode: TYPE.file, content: new Uint8Array(), blob: 1 }]);
    assert.equal(image.blobs.length, 2);
    const [first] = image.blobs;
    const { devices } = await read(
      image.bootstrap,
      new Map([[first?.descriptor.digest as Digest, first?.bytes as Uint8Array]]),
    );
    assert.equal(devices?.length, 1);
  });

  test('a table of contents that is not the named one is not believed', async () => {
    const entries = sampleEntries();
    const spoil = (image: RafsImage): Blobs =>
      new Map(
        [...blobsOf(image)].map(([digest, bytes]) => {
          const spoilt = Buffer.from(bytes);
          spoilt[spoilt.byteLength - 600] = (spoilt[spoilt.byteLength - 600] as number) ^ 1;
          return [digest, spoilt];
        }),
      );
    const bare = rafsImage(entries, { chunkTable: false });
    await assert.rejects(read(bare.bootstrap, spoil(bare)), { code: 'INVALID_LAYER' });
    // with a chunk table the bootstrap itself, which is verified, says all there is to know
    const image = rafsImage(entries);
    const { devices } = await read(image.bootstrap, spoil(image));
    assert.equal(devices?.length, 2);
  });
});

describe('what is not supported is refused by name', () => {
  const image = (change: (boot: Buffer) => void): RafsImage =>
    rafsImage(sampleEntries(), {}, (boot) => {
      change(boot);
      return boot;
    });
  const refused = async (code: string, says: RegExp, made: RafsImage, change: Partial<LayerDescriptor> = {}) => {
    const { bytes, descriptor } = made.bootstrap;
    await assert.rejects(read({ bytes, descriptor: { ...descriptor, ...change } }, blobsOf(made)), (error: unknown) => {
      assert.ok(error instanceof ShoalError, String(error));
      assert.match(error.message, says);
      assert.equal(error.code, code);
      return true;
    });
  };
  const BLOB_TABLE = 4096;

  test('encrypted blobs, tarfs, external storage', async () => {
    await refused(
      'UNSUPPORTED_LAYER',
      /encrypted/,
      image((boot) => boot.writeUInt32LE(1, BLOB_TABLE + 216)),
    );
    await refused(
      'UNSUPPORTED_LAYER',
      /encrypted/,
      image((boot) => boot.writeUInt32LE(0x101, BLOB_TABLE + 84)),
    );
    await refused(
      'UNSUPPORTED_LAYER',
      /tarfs/,
      image((boot) => boot.writeUInt32LE(0x41, BLOB_TABLE + 84)),
    );
    await refused(
      'UNSUPPORTED_LAYER',
      /external/,
      image((boot) => boot.writeUInt32LE(0x801, BLOB_TABLE + 84)),
    );
    await refused(
      'UNSUPPORTED_LAYER',
      /512 bytes/,
      image((boot) => boot.writeUInt8(9, 1036)),
    );
    await refused(
      'UNSUPPORTED_LAYER',
      /encrypted/,
      image(() => {}),
      {
        annotations: { [NYDUS.bootstrap]: 'true', [NYDUS.encrypted]: 'true' },
      },
    );
  });

  test('fs-version 7, by its annotation or by its layout', async () => {
    await refused(
      'UNSUPPORTED_LAYER',
      /fs-version "7"/,
      image(() => {}),
      {
        annotations: { [NYDUS.bootstrap]: 'true', [NYDUS.fsVersion]: '7' },
      },
    );
    await refused(
      'UNSUPPORTED_LAYER',
      /fs-version 7/,
      image((boot) => boot.writeUInt32LE(0, 1032)),
    );
    await refused(
      'UNSUPPORTED_LAYER',
      /fs-version 7/,
      rafsImage(sampleEntries(), {}, (boot) => Buffer.concat([boot, Buffer.from('LPFOOTER'), Buffer.alloc(4088)])),
    );
  });

  test('a bootstrap that is another file, or none', async () => {
    const made = image(() => {});
    const [other] = rafsImage([{ path: '', mode: TYPE.dir | 0o755 }], {}).bootstrap ? [made] : [];
    assert.ok(other !== undefined);
    await refused('INVALID_LAYER', /digest/, made, { digest: sha256('another') });
    await refused(
      'INVALID_LAYER',
      /neither/,
      rafsImage(sampleEntries(), {}, () => Buffer.alloc(10_000)),
    );
    const { descriptor } = made.bootstrap;
    const empty = {
      bytes: Buffer.alloc(10240),
      descriptor: { ...descriptor, digest: sha256(Buffer.alloc(10240)), size: 10240 },
    };
    await assert.rejects(read(empty, blobsOf(made)), { code: 'INVALID_LAYER' });
  });

  test('data where no chunk is', async () => {
    const entries: RafsEntry[] = [
      { path: '', mode: TYPE.dir | 0o755 },
      { path: 'f', mode: TYPE.file | 0o644, content: mixed(100_000, 1) },
    ];
    for (const [block, blocks] of [
      [1, 25],
      [0x00ffffff, 25],
    ] as const) {
      const made = rafsImage(entries, {}, (boot) => {
        // chunk 0 of device 1, at block 0
        const index = Buffer.from([0, 0, 1, 0, 0, 0, 0, 0]);
        let at = 12288;
        while (!boot.subarray(at, at + 8).equals(index)) at += 8;
        boot.writeUInt32LE(block, at + 4);
        return boot;
      });
      assert.equal(made.blobs[0]?.written.uncompressedSize, blocks * 4096);
      await refused('INVALID_LAYER', /where no chunk is/, made);
    }
  });

  test('names do not leave the image', async () => {
    const entries: RafsEntry[] = [
      { path: '', mode: TYPE.dir | 0o755 },
      { path: 'xx', mode: TYPE.dir | 0o755 },
      { path: 'xx/f', mode: TYPE.file | 0o644, content: Buffer.from('x') },
    ];
    for (const version of [5, 6] as const) {
      const made = rafsImage(entries, { version }, (boot) => {
        for (let at = boot.indexOf('xx'); at >= 0; at = boot.indexOf('xx', at + 2)) boot.write('a/', at);
        return boot;
      });
      await refused('INVALID_LAYER', /bad name/, made);
      assert.equal(byteString('x'), 'x');
    }
  });
});
