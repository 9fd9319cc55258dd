import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { ShoalError } from '../../../src/errors.ts';
import { type TarEntry, TarParser } from '../../../src/image/tar/parser.ts';
import { passOver } from '../pass/pass-lab.ts';
import { entryOf, headerOf, paxOf, type TarInput, tarOf } from './tar-lab.ts';

interface Parsed {
  readonly entry: TarEntry;
  readonly data: Buffer;
}

/** All entries, the tar handed over in pieces of `step` bytes. */
function parse(tar: Uint8Array, step = tar.byteLength): Parsed[] {
  const parsed: { entry: TarEntry; data: Buffer }[] = [];
  const parser = new TarParser({
    entry: (entry) => parsed.push({ entry, data: Buffer.alloc(0) }),
    data(bytes) {
      const last = parsed.at(-1) as { data: Buffer };
      last.data = Buffer.concat([last.data, bytes]);
    },
  });
  for (let at = 0; at < tar.byteLength; at += step) parser.write(tar.subarray(at, at + step));
  parser.end();
  return parsed;
}

const one = (input: TarInput): TarEntry => (parse(tarOf([input]))[0] as Parsed).entry;

describe('a tar', () => {
  test('of every entry type is the same however it is cut', () => {
    const tar = readFileSync(new URL('../../fixtures/tar/all-entry-type.tar', import.meta.url));
    const whole = parse(tar);
    assert.ok(whole.length > 5);
    for (const step of [1, 511, 512, 513, 5000]) assert.deepEqual(parse(tar, step), whole);
  });

  test('gives data with its place in the tar', () => {
    const tar = tarOf([
      { path: 'a', data: Buffer.from('first') },
      { path: 'b', pax: { mtime: '1.5' }, data: Buffer.from('second') },
    ]);
    for (const { entry, data } of parse(tar, 100)) {
      const there = tar.subarray(entry.dataOffset, entry.dataOffset + entry.dataLength);
      assert.equal(Buffer.compare(there, data), 0);
      assert.ok(data.byteLength > 0);
    }
  });

  test('keeps names that are not UTF-8', () => {
    assert.equal(one({ path: Buffer.from('caf\xe9', 'latin1') }).path, 'caf\xe9');
    assert.equal(one({ path: 'x', pax: { path: Buffer.from('caf\xe9', 'latin1') } }).path, 'caf\xe9');
  });

  test('takes long names of GNU, of pax, and by prefix', () => {
    const long = `${'d'.repeat(120)}/${'f'.repeat(120)}`;
    const gnu = tarOf([
      { path: '././@LongLink', type: 'L', data: Buffer.from(`${long}\0`) },
      { path: '././@LongLink', type: 'K', data: Buffer.from(`${long}-target\0`) },
      { path: 'd', type: '2', linkName: 'x', magic: 'ustar  \0' },
    ]);
    const { entry } = parse(gnu)[0] as Parsed;
    assert.deepEqual([entry.path, entry.linkName, entry.type], [long, `${long}-target`, 'symlink']);
    assert.equal(one({ path: 'd', pax: { path: long } }).path, long);
    assert.equal(one({ path: 'name', prefix: 'some/prefix' }).path, 'some/prefix/name');
    assert.equal(one({ path: 'name', prefix: 'no', magic: 'ustar  \0' }).path, 'name');
  });

  test('has times with fractions, before 1970 too', () => {
    const time = (mtime: string) => {
      const { mtimeSec, mtimeNsec } = one({ path: 'x', pax: { mtime } });
      return [mtimeSec, mtimeNsec];
    };
    assert.deepEqual(time('1700000000.123456789123'), [1_700_000_000, 123_456_789]);
    assert.deepEqual(time('5'), [5, 0]);
    assert.deepEqual(time('-1.25'), [-2, 750_000_000]);
    assert.deepEqual(time('-3'), [-3, 0]);
  });

  test('has numbers in base 256', () => {
    const change = (header: Buffer): void => {
      header.fill(0, 108, 116);
      header[108] = 0x80;
      header.writeUInt32BE(3_000_000_000, 112);
      header.fill(0xff, 136, 148);
    };
    const { uid, mtimeSec } = one({ path: 'x', change });
    assert.deepEqual([uid, mtimeSec], [3_000_000_000, -1]);
  });

  test('ignores global pax headers, as containerd does', () => {
    const tar = tarOf([{ path: 'g', type: 'g', data: paxOf({ uid: '7', path: 'other' }) }, { path: 'x' }]);
    const { entry } = parse(tar)[0] as Parsed;
    assert.deepEqual([entry.uid, entry.path], [0, 'x']);
  });

  test('brings xattrs byte for byte', () => {
    const value = Buffer.from([0, 10, 255, 61]);
    const { xattrs } = one({
      path: 'x',
      pax: { 'SCHILY.xattr.user.a=b': 'x', 'SCHILY.xattr.security.capability': value },
    });
    assert.deepEqual(
      [...(xattrs ?? [])].map(([name, bytes]) => [name, Buffer.from(bytes)]),
      [
        ['user.a', Buffer.from('b=x')],
        ['security.capability', value],
      ],
    );
  });

  test('gives links no data, whatever their size says', () => {
    const tar = tarOf([{ path: 'l', type: '1', linkName: 'x', size: 100 }, { path: 'x' }]);
    assert.deepEqual(
      parse(tar).map(({ entry }) => entry.dataLength),
      [0, 0],
    );
  });

  test('may lack its end marker, and what follows it is without meaning', () => {
    assert.equal(parse(entryOf({ path: 'x', data: Buffer.from('abc') })).length, 1);
    assert.equal(parse(Buffer.concat([tarOf([{ path: 'x' }]), entryOf({ path: 'y' }), Buffer.from('odd')])).length, 1);
  });
});

describe('sparse files', () => {
  const sparse = async (format: readonly string[]): Promise<void> => {
    const dir = await mkdtemp(join(tmpdir(), 'shoal-sparse-'));
    try {
      const file = await open(join(dir, 'holes'), 'w');
      const content = Buffer.alloc(900 * 1024);
      for (let index = 0; index < 40; index += 1) content.fill(index + 1, 16384 * index, 16384 * index + 4096);
      content.write('the end', content.byteLength - 7);
      for (let index = 0; index < 40; index += 1) await file.write(content, 16384 * index, 4096, 16384 * index);
      await file.write(content, content.byteLength - 7, 7, content.byteLength - 7);
      await file.close();
      await writeFile(join(dir, 'plain'), 'behind');
      const made = spawnSync('tar', ['-C', dir, '--sparse', ...format, '-cf', join(dir, 't.tar'), 'holes', 'plain']);
      assert.equal(made.status, 0, String(made.stderr));
      const { tree, device } = passOver(readFileSync(join(dir, 't.tar')));
      const holes = tree.root.children.get('holes' as never);
      assert.ok(holes?.kind === 'file' && holes.extents.length > 20 && device.byteLength < content.byteLength / 2);
      assert.equal(holes.size, content.byteLength);
      const read = Buffer.alloc(holes.size);
      for (const { fileOffset, deviceOffset, length } of holes.extents)
        device.copy(read, fileOffset, deviceOffset, deviceOffset + length);
      assert.equal(Buffer.compare(read, content), 0);
      assert.ok(tree.root.children.has('plain' as never));
    } finally {
      await rm(dir, { recursive: true });
    }
  };
  test('of GNU format with blocks of map', () => sparse(['--format=gnu']));
  test('of pax 0.0', () => sparse(['--format=posix', '--sparse-version=0.0']));
  test('of pax 0.1', () => sparse(['--format=posix', '--sparse-version=0.1']));
  test('of pax 1.0', () => sparse(['--format=posix', '--sparse-version=1.0']));
});

describe('a hostile tar', () => {
  const bad: Record<string, () => Buffer> = {
    'a wrong checksum': () => Buffer.concat([headerOf({ path: 'x' }, 0).fill(0x41, 0, 1)]),
    'letters for octal digits': () => tarOf([{ path: 'x', change: (header) => header.write('zzz', 124) }]),
    'a negative size': () => tarOf([{ path: 'x', change: (header) => header.fill(0xff, 124, 136) }]),
    'a size beyond 2^53': () =>
      tarOf([{ path: 'x', change: (header) => header.fill(0x7f, 125, 136).fill(0x80, 124, 125) }]),
    'data that is cut short': () => entryOf({ path: 'x', data: Buffer.alloc(600) }).subarray(0, 1000),
    'a header that is cut short': () => entryOf({ path: 'x' }).subarray(0, 100),
    'a long name for nothing': () => entryOf({ path: 'x', type: 'L', data: Buffer.from('name') }),
    'one block of zeros in the middle': () => Buffer.concat([Buffer.alloc(512), entryOf({ path: 'x' })]),
    'a pax record without an end': () =>
      tarOf([{ path: 'p', type: 'x', data: Buffer.from('12 path=abc') }, { path: 'x' }]),
    'a pax record of length 0': () => tarOf([{ path: 'p', type: 'x', data: Buffer.from('0 a=b\n') }, { path: 'x' }]),
    'a pax record of enormous length': () => tarOf([{ path: 'p', type: 'x', data: Buffer.from('99999999999 a=b\n') }]),
    'a pax name with NUL': () => tarOf([{ path: 'x', pax: { path: 'a\0b' } }]),
    'a pax size that is no number': () => tarOf([{ path: 'x', pax: { size: '1e3' } }]),
    'an empty name': () => tarOf([{ path: '' }]),
    'a path with ..': () => tarOf([{ path: 'a/../../x' }]),
    'a link to nothing': () => tarOf([{ path: 'l', type: '1', linkName: 'gone' }]),
    'a symlink without target': () => tarOf([{ path: 'l', type: '2' }]),
    'a sparse map that overlaps': () => sparseEntry('0,4096,100,4096'),
    'a sparse map beyond the file': () => sparseEntry('0,4096,8192,9000'),
    'a sparse map of another length than its data': () => sparseEntry('0,4096,8192,1'),
    'a sparse map of too few numbers': () => sparseEntry('0,4096,8192'),
    'a sparse map in the data that never ends': () =>
      tarOf([{ path: 'x', pax: SPARSE_1, data: Buffer.from(`5\n${'1\n'.repeat(300)}`.slice(0, 512)) }]),
    'a sparse map in the data that is longer than it': () =>
      tarOf([{ path: 'x', pax: SPARSE_1, data: Buffer.from('400\n') }]),
  };
  for (const [name, make] of Object.entries(bad)) {
    test(`with ${name} is refused`, () => assert.throws(() => passOver(make()), { code: 'INVALID_LAYER' }));
  }

  test('with an unknown type, or sparse data within a block, is left to containerd', () => {
    assert.throws(() => passOver(tarOf([{ path: 'x', type: 'Z' }])), { code: 'UNSUPPORTED_LAYER' });
    assert.throws(() => passOver(sparseEntry('0,4000,4200,4192')), { code: 'UNSUPPORTED_LAYER' });
  });

  test('with a header of 2 MiB or a million pieces is too large', () => {
    assert.throws(() => passOver(tarOf([{ path: 'x', type: 'x', size: 2 << 20 }])), { code: 'TOO_LARGE' });
    const map = Buffer.from('1000000\n').toString().padEnd(512, '0');
    assert.throws(() => passOver(tarOf([{ path: 'x', pax: SPARSE_1, data: Buffer.from(map) }])), ShoalError);
  });

  test('gives an error of ours or a tree, never anything else', () => {
    const seed = readFileSync(new URL('../../fixtures/tar/all-entry-type.tar', import.meta.url));
    const edits = fc.array(fc.tuple(fc.nat(seed.byteLength - 1), fc.nat(255)), { minLength: 1, maxLength: 20 });
    fc.assert(
      fc.property(edits, fc.boolean(), fc.integer({ min: 1, max: 3000 }), (changes, sums, step) => {
        const tar = Buffer.from(seed);
        for (const [at, byte] of changes) tar[at] = byte;
        if (sums) repairSums(tar);
        try {
          passOver(tar, { pieces: [step] });
        } catch (error) {
          assert.ok(error instanceof ShoalError, String(error));
        }
      }),
      { numRuns: 300 },
    );
  });
});

const SPARSE_1 = { 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.realsize': '100000' };

function sparseEntry(map: string): Buffer {
  const pax = { 'GNU.sparse.size': '12000', 'GNU.sparse.numblocks': '2', 'GNU.sparse.map': map };
  return tarOf([{ path: 'x', pax, data: Buffer.alloc(8192) }]);
}

/** Makes every header's checksum right, so that what else is wrong is looked at. */
function repairSums(tar: Buffer): void {
  for (let at = 0; at + 512 <= tar.byteLength; at += 512) {
    if (tar.toString('latin1', at + 257, at + 262) !== 'ustar') continue;
    const header = tar.subarray(at, at + 512);
    header.fill(0x20, 148, 156);
    const sum = header.reduce((total, byte) => total + byte, 0);
    header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  }
}
