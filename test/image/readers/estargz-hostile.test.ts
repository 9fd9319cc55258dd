import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { sha256 } from '../../../src/core/digest.ts';
import { ShoalError } from '../../../src/errors.ts';
import { decodeExtent } from '../../../src/image/codec.ts';
import type { LayerContent } from '../../../src/image/layer-reader.ts';
import { byteString, type FileNode, type TreeNode } from '../../../src/image/layer-tree.ts';
import { createEstargzReader, TOC_DIGEST_ANNOTATION } from '../../../src/image/readers/estargz.ts';
import { readLayer } from '../../../src/image/readers/index.ts';
import { verifyChunk } from '../../../src/store/verify-chunk.ts';
import {
  type EstargzImage,
  emptyMember,
  estargzImage,
  estargzWithJson,
  estargzWithToc,
  MemberWriter,
  type RawEntry,
  tarHeader,
} from '../../fakes/estargz-image.ts';
import { MemoryBlob } from '../../fakes/memory-blob.ts';

const signal = AbortSignal.timeout(120_000);
const MIB = 1024 * 1024;

async function read(image: EstargzImage): Promise<LayerContent> {
  const blob = new MemoryBlob(image.bytes, image.descriptor.digest);
  return (await readLayer(image.descriptor, blob, { signal })).content;
}

async function refused(code: string, says: RegExp, image: EstargzImage): Promise<void> {
  await assert.rejects(read(image), (error: unknown) => {
    assert.ok(error instanceof ShoalError, String(error));
    assert.match(error.message, says);
    assert.equal(error.code, code, error.message);
    assert.equal(error.context.layer, image.descriptor.digest);
    return true;
  });
}

/** An image of one file of 8192 bytes whose chunk entries are these, each naming an honest member. */
function chunked(chunks: readonly RawEntry[], first: RawEntry = {}): EstargzImage {
  const members = new MemberWriter();
  const entries: RawEntry[] = [];
  const member = (): RawEntry => ({ offset: members.add(Buffer.alloc(4096)), chunkDigest: sha256(Buffer.alloc(4096)) });
  entries.push({
    name: 'f',
    type: 'reg',
    size: 8192,
    chunkSize: 4096,
    digest: sha256(Buffer.alloc(8192)),
    ...member(),
    ...first,
  });
  for (const chunk of chunks) entries.push({ name: 'f', type: 'chunk', ...member(), ...chunk });
  return estargzImage(entries, members);
}

function fileAt(content: LayerContent, name: string): FileNode {
  const node: TreeNode | undefined = content.tree.root.children.get(byteString(name));
  assert.equal(node?.kind, 'file');
  return node as FileNode;
}

describe('names and links', () => {
  const one = (entry: RawEntry): EstargzImage => estargzImage([entry]);

  test('names that climb, hold NUL or are too long are refused', async () => {
    await refused('INVALID_LAYER', /"\.\."/, one({ name: '../../etc/cron.d/x', type: 'dir' }));
    await refused('INVALID_LAYER', /"\.\."/, one({ name: '/a/../../x', type: 'dir' }));
    await refused('INVALID_LAYER', /a\\x00b.*NUL/, one({ name: 'a\0b', type: 'dir' }));
    await refused('INVALID_LAYER', /longer than 255/, one({ name: 'n'.repeat(256), type: 'dir' }));
    await refused('INVALID_LAYER', /longer than 255/, one({ name: 'é'.repeat(128), type: 'dir' }));
    await refused('INVALID_LAYER', /empty name/, one({ type: 'dir' }));
  });

  test('absolute names lie inside the layer', async () => {
    const { tree } = await read(one({ name: '/etc/', type: 'dir', mode: 0o711 }));
    assert.deepEqual([...tree.root.children.keys()], ['etc']);
  });

  test('hard links out of the tree are refused', async () => {
    for (const linkName of ['/etc/shadow', 'nowhere', 'dir/../../x', '']) {
      await refused('INVALID_LAYER', /hard link/, one({ name: 'l', type: 'hardlink', linkName }));
    }
  });

  test('escaped names are the bytes they stand for, and bytes beyond ASCII survive', async () => {
    const json = Buffer.from(
      '{"version":1,"entries":[{"name":"caf\\u00e9\\u0026é","type":"dir"},{"name":"naïve","type":"dir"}]}',
    );
    const { tree } = await read(estargzWithJson(json));
    assert.deepEqual([...tree.root.children.keys()], [byteString('café&é'), byteString('naïve')]);
  });
});

describe('chunk tables', () => {
  test('a file may be in chunks listed in any order, and in members shared with others', async () => {
    const tail = Buffer.alloc(100, 'tail');
    const members = new MemberWriter();
    const shared = members.add(Buffer.concat([tail, Buffer.alloc(412), Buffer.alloc(5, 'x')]));
    const head = members.add(Buffer.alloc(4096, 'head'));
    const image = estargzImage(
      [
        {
          name: 'big',
          type: 'reg',
          size: 4196,
          offset: shared,
          chunkOffset: 4096,
          chunkSize: 100,
          chunkDigest: sha256(tail),
        },
        { name: 'big', type: 'chunk', offset: head, chunkSize: 4096, chunkDigest: sha256(Buffer.alloc(4096, 'head')) },
        { name: 'small', type: 'reg', size: 5, offset: shared, innerOffset: 512, digest: sha256(Buffer.alloc(5, 'x')) },
      ],
      members,
    );
    const { chunks, tree } = await read(image);
    assert.equal(chunks.count, 3);
    assert.equal(chunks.extentCount, 2);
    assert.equal(tree.root.children.size, 2);
    for (let index = 0; index < chunks.count; index += 1) {
      const row = chunks.row(index);
      const { codec, offset, length, decodedLength } = chunks.extent(row.extent);
      const decoded = await decodeExtent(codec, image.bytes.subarray(offset, offset + length), decodedLength, {
        signal,
      });
      await verifyChunk(row, decoded.subarray(row.innerOffset, row.innerOffset + row.length));
    }
  });

  test('the device follows the blob, and files before the prefetch landmark are its beginning', async () => {
    const members = new MemberWriter();
    const first = members.file('z-first', Buffer.alloc(5000, 1));
    const landmark = members.file('.prefetch.landmark', Buffer.from([15]));
    const last = members.file('a-last', Buffer.alloc(10, 2));
    const content = await read(estargzImage([last, landmark, first], members));
    assert.equal(fileAt(content, 'z-first').extents[0]?.deviceOffset, 0);
    assert.equal(fileAt(content, 'a-last').extents[0]?.deviceOffset, 8192);
    assert.equal(content.chunks.count, 2);
    assert.equal(content.prefetchBytes, 8192);
  });

  test('replaced files and whiteouts take no room on the device', async () => {
    const members = new MemberWriter();
    const content = await read(
      estargzImage(
        [
          members.file('f', Buffer.alloc(5000, 1)),
          members.file('.wh.gone', Buffer.alloc(1, 1)),
          members.file('f', Buffer.alloc(100, 2)),
        ],
        members,
      ),
    );
    assert.equal(content.chunks.count, 1);
    assert.equal(content.chunks.deviceSize, 4096);
    assert.equal(fileAt(content, 'f').size, 100);
  });

  test('chunks that overlap, leave gaps, run over or do not add up are refused', async () => {
    const refusedTable = (says: RegExp, image: EstargzImage): Promise<void> =>
      refused('INVALID_CHUNK_TABLE', says, image);
    assert.equal((await read(chunked([{ chunkOffset: 4096 }]))).chunks.count, 2);
    await refusedTable(/overlap at 0/, chunked([{ chunkOffset: 0 }]));
    await refusedTable(/overlap at 2048/, chunked([{ chunkOffset: 2048, chunkSize: 6144 }]));
    await refusedTable(/leave a gap at 4096/, chunked([{ chunkOffset: 6144 }]));
    await refusedTable(/4096 bytes in chunks, but is 8192/, chunked([]));
    await refusedTable(/has 4097 bytes at 4096 of 8192/, chunked([{ chunkOffset: 4096, chunkSize: 4097 }]));
    await refusedTable(/at 8192 of 8192/, chunked([{ chunkOffset: 4096 }, { chunkOffset: 8192 }]));
    await refusedTable(/at 12288 of 8192/, chunked([{ chunkOffset: 12288 }]));
    await refusedTable(/overlap at 4096/, chunked([{ chunkOffset: 4096 }], { chunkSize: 0 }));
    await refusedTable(/overlap at 4096/, chunked([{ chunkOffset: 4096, chunkSize: 4096 }, { chunkOffset: 4096 }]));
    await refusedTable(/no offset/, chunked([{ chunkOffset: 4096, offset: 0 }]));
  });

  test('numbers over 2^53, negative, fractional or of another type are refused', async () => {
    for (const field of ['chunkOffset', 'chunkSize', 'offset', 'innerOffset', 'size', 'mode', 'uid', 'devMajor']) {
      for (const value of [2 ** 53, 1e300, -1, 0.5, '4096', {}, true]) {
        await refused('INVALID_LAYER', new RegExp(`bad ${field}`), chunked([{ chunkOffset: 4096, [field]: value }]));
      }
    }
    const almost = Number.MAX_SAFE_INTEGER;
    await refused('INVALID_CHUNK_TABLE', /"f"/, chunked([{ chunkOffset: almost, chunkSize: almost }]));
    await refused('INVALID_CHUNK_TABLE', /length/, chunked([], { size: almost, chunkSize: almost }));
    await refused('INVALID_CHUNK_TABLE', /too deep/, chunked([{ chunkOffset: 4096, innerOffset: almost }]));
  });

  test('data behind the end of the blob, or where the TOC is, is refused', async () => {
    for (const offset of [10_000_000, Number.MAX_SAFE_INTEGER]) {
      await refused('INVALID_CHUNK_TABLE', /behind the end of the data/, chunked([{ chunkOffset: 4096, offset }]));
    }
    const image = chunked([{ chunkOffset: 4096 }]);
    await refused('INVALID_CHUNK_TABLE', /behind the end/, chunked([{ chunkOffset: 4096, offset: image.tocOffset }]));
  });

  test('chunks without a usable digest, or too large, are refused', async () => {
    await refused('INVALID_CHUNK_TABLE', /no digest/, chunked([{ chunkOffset: 4096, chunkDigest: '' }]));
    await refused(
      'INVALID_CHUNK_TABLE',
      /bad chunk digest/,
      chunked([{ chunkOffset: 4096, chunkDigest: 'sha256:00' }]),
    );
    const sha512 = `sha512:${'0'.repeat(128)}`;
    await refused('UNSUPPORTED_LAYER', /not sha256/, chunked([{ chunkOffset: 4096, chunkDigest: sha512 }]));
    const size = 33 * MIB;
    await refused('INVALID_CHUNK_TABLE', /length 34603008/, chunked([], { size, chunkSize: size }));
    const small = estargzImage([{ name: 'f', type: 'reg', size: 5, offset: 1 }]);
    await refused('INVALID_CHUNK_TABLE', /no digest/, small);
  });

  test('chunks that follow no file are refused', async () => {
    await refused('INVALID_CHUNK_TABLE', /follows no file/, estargzImage([{ name: 'f', type: 'chunk', offset: 9 }]));
    await refused('INVALID_CHUNK_TABLE', /follows "f"/, chunked([{ name: 'g', chunkOffset: 4096 }]));
  });

  test('chunks that do not begin at a block are not supported', async () => {
    const image = chunked([{ chunkOffset: 1000, chunkSize: 7192 }], { chunkSize: 1000 });
    await refused('UNSUPPORTED_LAYER', /multiples of 4096/, image);
  });

  test('a member that expands past its declared size is stopped there', async () => {
    const members = new MemberWriter();
    const content = Buffer.alloc(10);
    const bomb = members.addRaw(gzipSync(Buffer.alloc(300 * MIB)));
    const image = estargzImage([{ name: 'f', type: 'reg', size: 10, offset: bomb, digest: sha256(content) }], members);
    const { chunks } = await read(image);
    const extent = chunks.extent(0);
    const coded = image.bytes.subarray(extent.offset, extent.offset + extent.length);
    assert.ok(coded.byteLength > 200_000);
    const before = process.memoryUsage().arrayBuffers;
    const decoded = await decodeExtent(extent.codec, coded, extent.decodedLength, { signal });
    assert.equal(decoded.byteLength, 10);
    assert.ok(process.memoryUsage().arrayBuffers - before < MIB);
  });
});

describe('the TOC', () => {
  test('is looked for only where the annotation and the footer are', async () => {
    const { bytes, descriptor } = estargzImage([]);
    const reader = createEstargzReader();
    assert.equal(await reader.probe(descriptor, new MemoryBlob(bytes), { signal }), true);
    assert.equal(await reader.probe(descriptor, new MemoryBlob(bytes.subarray(0, -1)), { signal }), false);
    assert.equal(await reader.probe({ ...descriptor, annotations: {} }, new MemoryBlob(bytes), { signal }), false);
    for (const size of [0, 1, 20]) {
      assert.equal(await reader.probe(descriptor, new MemoryBlob(new Uint8Array(size)), { signal }), false);
    }
    const annotations = {};
    const reading = reader.read({ ...descriptor, annotations }, new MemoryBlob(bytes), { signal });
    await assert.rejects(reading, { code: 'UNSUPPORTED_LAYER' });
  });

  test('is found through the 47-byte footer of stargz', async () => {
    const modern = estargzImage([{ name: 'd', type: 'dir' }]);
    const footer = emptyMember(`${modern.tocOffset.toString(16).padStart(16, '0')}STARGZ`);
    assert.equal(footer.byteLength, 47);
    const bytes = Buffer.concat([modern.bytes.subarray(0, -51), footer]);
    const descriptor = { ...modern.descriptor, size: bytes.byteLength };
    assert.equal((await read({ ...modern, bytes, descriptor })).tree.root.children.size, 1);
  });

  test('in another image is refused by its name', async () => {
    const { bytes, descriptor, tocOffset } = estargzImage([]);
    const footer = emptyMember('SG\x11\0STARGZEXTERNALTOC');
    assert.equal(footer.byteLength, 46);
    const external = Buffer.concat([bytes.subarray(0, tocOffset), footer]);
    const image = { bytes: external, descriptor: { ...descriptor, size: external.byteLength }, tocOffset };
    await refused('UNSUPPORTED_LAYER', /STARGZEXTERNALTOC/, image);
  });

  test('behind the speculative tail costs a second request', async () => {
    const members = new MemberWriter();
    const entries = Array.from({ length: 3000 }, (_, n) => {
      // Random-looking digests keep the TOC from compressing well.
      return {
        name: `f${n}`,
        type: 'reg',
        size: 1,
        offset: 20,
        chunkDigest: sha256(String(n)),
        digest: sha256(`${n}.`),
      };
    });
    const filler = { name: 'filler', type: 'dir', xattrs: { 'user.x': noise(60_000).toString('base64') } };
    const fillers = Array.from({ length: 20 }, (_, n) => ({
      ...filler,
      name: `d${n}`,
      xattrs: { 'user.x': noise(60_000 + n).toString('base64') },
    }));
    const image = estargzImage([...entries, ...fillers], members);
    const blob = new MemoryBlob(image.bytes, image.descriptor.digest);
    const { content } = await readLayer(image.descriptor, blob, { signal });
    assert.equal(content.chunks.count, 3000);
    assert.equal(blob.reads.length, 2);
    assert.ok(image.bytes.byteLength - image.tocOffset > MIB);
  });

  test('with a pax header before it is read', async () => {
    const json = Buffer.from('{"version":1,"entries":[]}');
    const record = Buffer.alloc(512);
    record.write('20 mtime=1700000000\n');
    const tar = Buffer.concat([
      tarHeader('PaxHeaders/x', 20, 'x'),
      record,
      tarHeader('stargz.index.json', json.byteLength),
      json,
    ]);
    await read(estargzWithToc(gzipSync(tar), sha256(json)));
  });

  test('that is no tar, not gzip, cut short or longer than allowed is refused', async () => {
    const pin = sha256('');
    const toc = (bytes: Uint8Array): EstargzImage => estargzWithToc(bytes, pin);
    await refused('INVALID_LAYER', /not a gzip member/, toc(Buffer.alloc(100)));
    await refused('INVALID_LAYER', /ends after 3 of 512/, toc(gzipSync('abc')));
    await refused('INVALID_LAYER', /no valid size/, toc(gzipSync(Buffer.alloc(1024, 'x'))));
    await refused('INVALID_LAYER', /does not begin with/, toc(gzipSync(tarHeader('other', 0))));
    await refused('INVALID_LAYER', /does not begin with/, toc(gzipSync(Buffer.concat([tarHeader('p', 2 ** 30, 'x')]))));
    await refused('INVALID_LAYER', /ends after 512 of 612/, toc(gzipSync(tarHeader('stargz.index.json', 100))));
    await refused('INVALID_DIGEST', /not a digest/, estargzWithToc(gzipSync('x'), 'md5:00'));
    const limited = createEstargzReader({ limits: { maxTocBytes: 10 } });
    const { bytes, descriptor } = estargzImage([]);
    await assert.rejects(limited.read(descriptor, new MemoryBlob(bytes), { signal }), { code: 'TOO_LARGE' });
    const few = createEstargzReader({ limits: { maxEntries: 1 } });
    const two = estargzImage([
      { name: 'a', type: 'dir' },
      { name: 'b', type: 'dir' },
    ]);
    await assert.rejects(few.read(two.descriptor, new MemoryBlob(two.bytes), { signal }), { code: 'TOO_LARGE' });
  });

  test('of 500 MB is refused at once, in a few MiB of memory, whatever its header claims', () => {
    const child = fileURLToPath(new URL('../../fakes/huge-toc-child.ts', import.meta.url));
    for (const claim of ['honest', 'small', 'limit']) {
      const { status, stdout, stderr } = spawnSync(process.execPath, [child, claim], { timeout: 60_000 });
      assert.equal(status, 0, String(stderr));
      const { code, grownBytes, tookMs } = JSON.parse(String(stdout)) as Record<string, unknown>;
      assert.equal(code, claim === 'honest' ? 'TOO_LARGE' : 'INVALID_LAYER');
      // With a claim at the limit, 128 MiB of JSON are held once to be hashed.
      const allowed = claim === 'limit' ? 200 * MIB : 32 * MIB;
      assert.ok((grownBytes as number) < allowed, `${claim}: ${grownBytes} bytes`);
      assert.ok((tookMs as number) < 20_000, `${claim}: ${tookMs} ms`);
    }
  });

  test('that is not the expected JSON is refused', async () => {
    const texts = [
      '',
      '[]',
      '{',
      '{"version":1',
      '{"version":1,}',
      '{"version":1 "entries":[]}',
      '{"entries":{}}',
      '{"entries":[1]}',
      '{"entries":[{}]}',
      '{"entries":[{"type":"reg"},]}',
      '{"entries":[{"type":"dir","name":"a"}',
      '{"entries":[[]]}',
      '{"version":1,"entries":[]}x',
      '{"entries":[{"type":"dir" "name":"a"}]}',
      '{"entries":[{"type":"dir","name":"\\q"}]}',
      '{"entries":[{"type":"dir","name":1}]}',
      '{"entries":[{"type":"dir","name":"a","xattrs":[]}]}',
      '{"entries":[{"type":"dir","name":"a","xattrs":{"user.a":"***="}}]}',
      '{"entries":[{"type":"socket","name":"a"}]}',
      '{"entries":[{"type":"dir","name":"a","modtime":"yesterday"}]}',
      '{"entries":[{"type":"dir","name":"a","modtime":"2020-13-45T00:00:00Z"}]}',
      `{"entries":[${'['.repeat(100_000)}`,
      `{"entries":[{"a":"${'x'.repeat(2 * MIB)}"}]}`,
      'null',
      '{"version":1,"entries":null}',
    ];
    for (const text of texts) await refused('INVALID_LAYER', /./, estargzWithJson(Buffer.from(text)));
    await refused('UNSUPPORTED_LAYER', /version 2/, estargzWithJson(Buffer.from('{"version":2,"entries":[]}')));
    await refused('UNSUPPORTED_LAYER', /version undefined/, estargzWithJson(Buffer.from('{"entries":[]}')));
  });

  test('may carry members that nobody knows, and null for what is absent', async () => {
    const json =
      '{"new":{"a":["}"]},"entries":[ {"type":"dir","name":"d","size":null,"odd":[{}]} ] , "version" : 1 }\n';
    const { tree } = await read(estargzWithJson(Buffer.from(json)));
    assert.equal(tree.root.children.size, 1);
  });

  test('has its times read to the nanosecond', async () => {
    const modtime = '2026-11-23T05:41:41.123456789+02:00';
    const { tree } = await read(
      estargzImage([
        { name: 'd', type: 'dir', modtime },
        { name: 'e', type: 'dir', modtime: '1950-01-01T00:00:00Z' },
      ]),
    );
    const [d, e] = [...tree.root.children.values()];
    assert.deepEqual(d?.kind === 'dir' && [d.mtimeSec, d.mtimeNsec], [1795405301, 123456789]);
    assert.equal(e?.kind === 'dir' && e.mtimeSec, -631152000);
  });

  test('the annotation must match the JSON, not the compressed bytes', async () => {
    const { bytes, descriptor, tocOffset } = estargzImage([]);
    const annotations = { [TOC_DIGEST_ANNOTATION]: sha256(bytes.subarray(tocOffset, -51)) };
    await refused('INVALID_LAYER', /annotated digest/, {
      bytes,
      descriptor: { ...descriptor, annotations },
      tocOffset,
    });
  });
});

describe('fuzz', () => {
  const members = new MemberWriter();
  const honest = Buffer.from(
    JSON.stringify({
      version: 1,
      entries: [
        members.file('.prefetch.landmark', Buffer.from([15])),
        { name: './', type: 'dir', mode: 493, modtime: '2026-11-23T03:41:41Z' },
        members.file('./a\u00e9&<', Buffer.alloc(3000, 7), { xattrs: { 'user.x': 'AAE=' }, uid: 1, gid: 2 }),
        { name: 'l', type: 'hardlink', linkName: './a\u00e9&<' },
        { name: 's', type: 'symlink', linkName: '../x' },
        { name: 'c', type: 'char', devMajor: 1, devMinor: 3 },
        members.file('big', Buffer.alloc(4096, 1), { size: 4100, chunkSize: 4096 }),
        { ...members.file('big', Buffer.alloc(4, 2)), type: 'chunk', chunkOffset: 4096, size: 0 },
        { name: 'd/.wh.x', type: 'reg' },
      ],
    }),
  );
  const data = members.bytes();

  /** The image with this TOC text behind the honest members, the annotation fitting. */
  const withToc = (json: Uint8Array): EstargzImage => {
    const copy = new MemberWriter();
    copy.addRaw(data.subarray(copy.size));
    return estargzWithJson(json, copy);
  };

  const outcome = async (image: EstargzImage): Promise<'read' | 'refused'> => {
    try {
      await read(image);
      return 'read';
    } catch (error) {
      assert.ok(error instanceof ShoalError, String(error));
      // A wrapped TypeError would hide a bug behind a good code.
      assert.ok(!(error.cause instanceof TypeError || error.cause instanceof RangeError), String(error.cause));
      return 'refused';
    }
  };

  test('the honest TOC is read', async () => {
    assert.equal(await outcome(withToc(honest)), 'read');
  });

  test('mutated TOC text is read or refused with a ShoalError', async () => {
    const snippets = fc.constantFrom(
      '"',
      '\\',
      '{',
      '}',
      '[',
      ']',
      ',',
      ':',
      '\\u0000',
      '-',
      'e9',
      '1e400',
      'null',
      '..',
      '/',
      '\0',
      'é',
    );
    const edit = fc.tuple(fc.nat(honest.byteLength), fc.nat(8), fc.oneof(snippets, fc.string({ maxLength: 4 })));
    const seen = { read: 0, refused: 0 };
    await fc.assert(
      fc.asyncProperty(fc.array(edit, { minLength: 1, maxLength: 3 }), async (edits) => {
        let json = honest;
        for (const [at, cut, text] of edits) {
          json = Buffer.concat([json.subarray(0, at), Buffer.from(text), json.subarray(at + cut)]);
        }
        seen[await outcome(withToc(json))] += 1;
      }),
      { numRuns: 1500 },
    );
    assert.ok(seen.read > 0 && seen.refused > 0, JSON.stringify(seen));
  });

  test('TOC entries with any values in their fields are read or refused with a ShoalError', async () => {
    const value = fc.oneof(
      fc.constantFrom<unknown>(null, 0, 1, 4096, 2 ** 31, 2 ** 53 - 1, -1, '', './', 'big', '..', 'sha256:0', {}, []),
      fc.string({ maxLength: 5 }),
      fc.integer(),
    );
    const type = fc.constantFrom('dir', 'reg', 'symlink', 'hardlink', 'char', 'block', 'fifo', 'chunk', 'odd');
    const names = [
      'name',
      'linkName',
      'size',
      'offset',
      'innerOffset',
      'chunkOffset',
      'chunkSize',
      'chunkDigest',
      'digest',
    ];
    const more = ['mode', 'uid', 'gid', 'modtime', 'devMajor', 'devMinor', 'xattrs'];
    const fields = fc.dictionary(fc.constantFrom(...names, ...more), value, { maxKeys: 6 });
    const entry = fc.tuple(type, fc.constantFrom('a', 'a/b', 'c', '.wh.a', './'), fields);
    await fc.assert(
      fc.asyncProperty(fc.array(entry, { maxLength: 5 }), async (entries) => {
        const json = { version: 1, entries: entries.map(([kind, name, rest]) => ({ type: kind, name, ...rest })) };
        await outcome(withToc(Buffer.from(JSON.stringify(json))));
      }),
      { numRuns: 1500 },
    );
  });

  test('random bytes as blob, as TOC member and as footer are refused', async () => {
    const { bytes, descriptor, tocOffset } = withToc(honest);
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 300 }), fc.nat(bytes.byteLength), async (noise, at) => {
        const { size: _, ...unsized } = descriptor;
        assert.equal(await outcome({ bytes: noise, descriptor: unsized, tocOffset }), 'refused');
        await outcome(estargzWithToc(gzipSync(noise), sha256(noise)));
        const damaged = Buffer.from(bytes);
        damaged.set(noise.subarray(0, damaged.byteLength - at), at);
        await outcome({ bytes: damaged, descriptor, tocOffset });
      }),
      { numRuns: 500 },
    );
  });
});

/** Bytes that do not compress, the same every time. */
function noise(length: number): Buffer {
  const parts: Buffer[] = [];
  for (let n = 0; n * 32 < length; n += 1) parts.push(Buffer.from(sha256(`${length}:${n}`).slice(7), 'hex'));
  return Buffer.concat(parts).subarray(0, length);
}
