import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import fc from 'fast-check';
import { sha256 } from '../../../src/core/digest.ts';
import { ShoalError } from '../../../src/errors.ts';
import { decodeExtent } from '../../../src/image/codec.ts';
import type { LayerContent } from '../../../src/image/layer-reader.ts';
import { readLayer } from '../../../src/image/readers/index.ts';
import { createZstdchunkedReader } from '../../../src/image/readers/zstdchunked.ts';
import { parseManifestPosition } from '../../../src/image/readers/zstdchunked-footer.ts';
import type { RawEntry } from '../../fakes/estargz-image.ts';
import { MemoryBlob } from '../../fakes/memory-blob.ts';
import { type FixtureLayer, fixtureLayers } from '../../fakes/oci-layout.ts';
import { FrameWriter, zstdchunkedLayer, zstdchunkedWithJson } from '../../fakes/zstdchunked-image.ts';

const signal = AbortSignal.timeout(240_000);
const PREFIX = 'io.github.containers.zstd-chunked.';

async function read({ descriptor, bytes }: FixtureLayer, readers = [createZstdchunkedReader()]): Promise<LayerContent> {
  return (await readLayer(descriptor, new MemoryBlob(bytes, descriptor.digest), { signal, readers })).content;
}

async function refused(code: string, says: RegExp, layer: FixtureLayer): Promise<void> {
  await assert.rejects(read(layer), (error: unknown) => {
    assert.ok(error instanceof ShoalError, String(error));
    assert.match(error.message, says);
    assert.equal(error.code, code, error.message);
    return true;
  });
}

/** A layer of one file of 8192 bytes in two chunks, with these fields of its two entries changed. */
function changed(first: RawEntry, second: RawEntry): FixtureLayer {
  const frames = new FrameWriter();
  const [head, tail] = frames.file('f', Buffer.alloc(8192, 'content'), [5000]);
  return zstdchunkedLayer(
    [
      { ...head, ...first },
      { ...tail, ...second },
    ],
    frames,
  );
}

describe('a zstd:chunked TOC is refused', () => {
  test('when chunks overlap, leave a gap, pass the end or are empty', async () => {
    assert.equal((await read(changed({}, {}))).chunks.count, 2);
    await refused('INVALID_CHUNK_TABLE', /overlap/, changed({}, { chunkOffset: 4999 }));
    await refused('INVALID_CHUNK_TABLE', /gap/, changed({}, { chunkOffset: 5001 }));
    await refused('INVALID_CHUNK_TABLE', /3193 bytes at 5000 of 8192/, changed({}, { chunkSize: 3193 }));
    await refused('INVALID_CHUNK_TABLE', /8191 bytes in chunks/, changed({}, { chunkSize: 3191 }));
    await refused('INVALID_CHUNK_TABLE', /gap/, changed({ chunkSize: 1 }, {}));
    await refused('INVALID_CHUNK_TABLE', /bytes at/, changed({}, { chunkOffset: 5000, chunkSize: 2 ** 52 }));
  });

  test('when frames lie outside the data or run backwards', async () => {
    await refused('INVALID_CHUNK_TABLE', /behind its end/, changed({ endOffset: 2 ** 40 }, {}));
    await refused('INVALID_CHUNK_TABLE', /frame/, changed({}, { offset: 2 ** 40 }));
    await refused('INVALID_CHUNK_TABLE', /frame/, changed({ endOffset: 10 }, {}));
    await refused('INVALID_CHUNK_TABLE', /frame/, changed({}, { offset: 1 }));
  });

  test('when digests or chunk types are not what they should be', async () => {
    await refused('INVALID_CHUNK_TABLE', /bad chunk digest/, changed({ chunkDigest: 'sha256:00' }, {}));
    await refused('INVALID_CHUNK_TABLE', /no digest/, changed({}, { chunkDigest: '' }));
    await refused('UNSUPPORTED_LAYER', /not sha256/, changed({}, { chunkDigest: `blake3:${'0'.repeat(64)}` }));
    await refused('INVALID_LAYER', /chunkType/, changed({}, { chunkType: 'secret' }));
    await refused('INVALID_CHUNK_TABLE', /does not follow/, zstdchunkedLayer([{ name: 'f', type: 'chunk' }]));
  });

  test('when a chunk is larger than any fault may fetch', async () => {
    const size = 33 * 1024 * 1024;
    const layer = zstdchunkedLayer([{ name: 'f', type: 'reg', size, offset: 1, endOffset: 10, digest: sha256('x') }]);
    await refused('INVALID_CHUNK_TABLE', /length/, layer);
  });

  test('when names climb or links leave', async () => {
    await refused('INVALID_LAYER', /"\.\."/, zstdchunkedLayer([{ name: './../x', type: 'dir' }]));
    await refused(
      'INVALID_LAYER',
      /hard link/,
      zstdchunkedLayer([{ name: 'l', type: 'hardlink', linkName: '/etc/shadow' }]),
    );
  });
});

test('what the annotations say of the TOC is checked before anything is fetched or decoded', async () => {
  const layer = zstdchunkedLayer([{ name: 'd', type: 'dir' }]);
  const at = (position: string): FixtureLayer => {
    const annotations = { ...layer.descriptor.annotations, [`${PREFIX}manifest-position`]: position };
    return { ...layer, descriptor: { ...layer.descriptor, annotations } };
  };
  await refused('TOO_LARGE', /TOC/, at('8:100:99999999999:1'));
  await refused('TOO_LARGE', /TOC/, at('8:99999999999:100:1'));
  await refused('INVALID_LAYER', /outside/, at('9007199254740000:100:100:1'));
  await refused('INVALID_LAYER', /outside/, at('0:100:100:1'));
  for (const bad of ['', '1:2:3', '1:2:3:2', 'x:2:3:1', '8:0:100:1', '99999999999999999:1:1:1', '-1:2:3:1']) {
    await refused('INVALID_LAYER', /no place/, at(bad));
  }
});

test('a TOC that expands without end is cut at its stated length', async () => {
  const bomb = zstdCompressSync(Buffer.alloc(200 * 1024 * 1024));
  const frames = new FrameWriter();
  const offset = frames.addRaw(bomb);
  const { bytes } = zstdchunkedWithJson(Buffer.from('{}'), frames);
  const annotations = {
    [`${PREFIX}manifest-checksum`]: sha256(bomb),
    [`${PREFIX}manifest-position`]: `${offset}:${bomb.byteLength}:1000:1`,
  };
  const before = process.memoryUsage.rss();
  await refused('INVALID_LAYER', /JSON/, { bytes, descriptor: { digest: sha256(bytes), annotations } });
  assert.ok(process.memoryUsage.rss() - before < 64 * 1024 * 1024);
});

test('a frame that is not what its chunk says is refused when it is decoded', async () => {
  const good = zstdCompressSync(Buffer.alloc(100_000, 'x'));
  const refuse = async (bytes: Uint8Array, length: number): Promise<void> => {
    await assert.rejects(decodeExtent('zstd', bytes, length, { signal }), { code: 'CHUNK_CORRUPT' });
  };
  await refuse(good, 100_001);
  await refuse(good.subarray(0, good.byteLength - 5), 100_000);
  await refuse(Buffer.from('not a frame at all'), 100);
  // a window of 2 GiB: descriptor byte with exponent 21
  await refuse(Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00]), 100_000);
});

test('mutations of a real TOC are read or refused, never worse', async () => {
  const [, layer] = await fixtureLayers('small/oci-zstdchunked');
  const { descriptor, bytes } = layer as FixtureLayer;
  const position = parseManifestPosition(descriptor.annotations[`${PREFIX}manifest-position`] as string);
  const { offset = 0, length = 0 } = position ?? {};
  const json = zstdDecompressSync(bytes.subarray(offset, offset + length)).toString('latin1');
  const numbers = [...json.matchAll(/\d+/g)].map(({ index, 0: text }) => ({ index, length: text.length }));
  const edit = fc.oneof(
    fc.record({ at: fc.nat(json.length - 1), cut: fc.nat(8), put: fc.string({ maxLength: 4 }) }),
    fc.record({
      at: fc.nat(numbers.length - 1),
      put: fc.constantFrom('0', '1', '4095', '4096', '9007199254740991', '18446744073709551615', '-1', '1e300'),
    }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(edit, { minLength: 1, maxLength: 4 }), async (edits) => {
      let text = json;
      for (const change of edits) {
        const place =
          'cut' in change ? { index: change.at, length: change.cut } : (numbers[change.at] as (typeof numbers)[0]);
        text = text.slice(0, place.index) + change.put + text.slice(place.index + place.length);
      }
      const started = performance.now();
      const toc = zstdCompressSync(Buffer.from(text, 'latin1'));
      const mutated = Buffer.concat([bytes.subarray(0, offset), toc, bytes.subarray(offset + length)]);
      const annotations = {
        [`${PREFIX}manifest-checksum`]: sha256(toc),
        [`${PREFIX}manifest-position`]: `${offset}:${toc.byteLength}:${text.length}:1`,
      };
      try {
        const { chunks } = await read({ bytes: mutated, descriptor: { digest: sha256(mutated), annotations } });
        assert.ok(chunks.deviceSize < 2 ** 40);
      } catch (error) {
        assert.ok(error instanceof ShoalError, String(error));
        assert.match(error.code, /^(INVALID_LAYER|INVALID_CHUNK_TABLE|UNSUPPORTED_LAYER|TOO_LARGE)$/);
      }
      assert.ok(performance.now() - started < 5_000);
    }),
    { numRuns: 300 },
  );
});
