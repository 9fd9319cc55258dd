import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type ByteRange, createReadahead, type Readahead } from '../../src/core/policy/readahead.ts';

const MIB = 1024 * 1024;
const AMPLE = 1 << 30;

test('the window doubles from 1 to 16 MiB while a reader goes on', () => {
  const policy = createReadahead({ deviceSize: 1024 * MIB });
  assert.equal(policy.onFault({ offset: 0, length: 65536 }, AMPLE), undefined, 'one read is no sequence');
  let at = 65536;
  const lengths: number[] = [];
  for (let round = 0; round < 8; round += 1) {
    const ahead = policy.onFault({ offset: at, length: 65536 }, AMPLE);
    assert.ok(ahead !== undefined);
    assert.equal(ahead.offset, at + 65536);
    lengths.push(ahead.length / MIB);
    // The reader is silent until it has used up what was fetched.
    at = ahead.offset + ahead.length;
  }
  assert.deepEqual(lengths, [1, 2, 4, 8, 16, 16, 16, 16]);
});

test('a reader that catches up with what is under way keeps the window full without asking for little pieces', () => {
  const policy = createReadahead({ deviceSize: 1024 * MIB });
  let asked = 0;
  let requests = 0;
  for (let at = 0; at < 100 * MIB; at += 131_072) {
    const ahead = policy.onFault({ offset: at, length: 131_072 }, AMPLE);
    if (ahead === undefined) continue;
    requests += 1;
    asked += ahead.length;
    if (at > 20 * MIB) assert.ok(ahead.length >= 8 * MIB - 131_072);
  }
  assert.ok(asked >= 100 * MIB && asked <= 117 * MIB, `${asked / MIB} MiB`);
  assert.ok(requests < 25, `${requests}`);
});

test('random reads ask for nothing, several files at once are told apart', () => {
  const random = createReadahead({ deviceSize: 1024 * MIB });
  for (let i = 0; i < 100; i += 1) {
    assert.equal(random.onFault({ offset: ((i * 37) % 101) * 8 * MIB, length: 4096 }, AMPLE), undefined);
  }
  const policy = createReadahead({ deviceSize: 1024 * MIB });
  const heads = [0, 100 * MIB, 200 * MIB, 300 * MIB];
  for (const at of heads) assert.equal(policy.onFault({ offset: at, length: 4096 }, AMPLE), undefined);
  for (const at of heads) assert.ok(policy.onFault({ offset: at + 4096, length: 4096 }, AMPLE));
});

test('what is asked for lies ahead on the device, within the allowance, and never twice', () => {
  const fault = fc.record({
    offset: fc.nat(4000).map((n) => n * 4096),
    length: fc.integer({ min: 1, max: 64 }).map((n) => n * 4096),
  });
  fc.assert(
    fc.property(fc.array(fault, { maxLength: 60 }), fc.nat(20 * MIB), (faults, allowance) => {
      const deviceSize = 4064 * 4096;
      const policy = createReadahead({ deviceSize });
      for (const each of faults) {
        const ahead = policy.onFault(each, allowance);
        if (ahead === undefined) continue;
        assert.ok(ahead.offset >= each.offset + each.length);
        assert.ok(ahead.length > 0 && ahead.length <= allowance && ahead.length <= 16 * MIB);
        assert.ok(ahead.offset + ahead.length <= deviceSize);
        const again = policy.onFault(each, allowance);
        assert.equal(again, undefined, 'the same fault twice asks once');
      }
    }),
  );
});

test('a read inside what the image marks asks for nothing beyond it, one behind it does', () => {
  const policy = createReadahead({ deviceSize: 64 * MIB, markedBytes: 8 * MIB });
  policy.onFault({ offset: 6 * MIB, length: MIB }, AMPLE);
  assert.deepEqual(policy.onFault({ offset: 7 * MIB - 4096, length: 8192 }, AMPLE), {
    offset: 7 * MIB + 4096,
    length: MIB - 4096,
  });
  policy.onFault({ offset: 20 * MIB, length: MIB }, AMPLE);
  assert.deepEqual(policy.onFault({ offset: 21 * MIB, length: MIB }, AMPLE), { offset: 22 * MIB, length: MIB });
});

/** Reads [start, end) in pieces of 128 KiB; gives what is asked for ahead. */
function readThrough(policy: Readahead, start: number, end: number): ByteRange[] {
  const asked: ByteRange[] = [];
  for (let offset = start; offset < end; offset += 131_072) {
    const ahead = policy.onFault({ offset, length: Math.min(131_072, end - offset) }, AMPLE);
    if (ahead !== undefined) asked.push(ahead);
  }
  return asked;
}

/** How far what was asked for reaches, bytes. */
function reach(asked: readonly ByteRange[]): number {
  return Math.max(0, ...asked.map(({ offset, length }) => offset + length));
}

/** A device of files of `size` bytes each. */
function filesOf(size: number): { deviceSize: number; edgeAfter: (offset: number) => number } {
  return { deviceSize: 1024 * MIB, edgeAfter: (offset) => (Math.floor(offset / size) + 1) * size };
}

test('a window ends where the file ends, however large it has become', () => {
  const policy = createReadahead(filesOf(40 * MIB));
  const asked = readThrough(policy, 80 * MIB, 120 * MIB);
  assert.equal(reach(asked), 120 * MIB);
  assert.ok(asked.length < 12, `${asked.length} requests`);
});

test('whoever reads files apart from each other is given nothing but them', () => {
  const policy = createReadahead(filesOf(8 * MIB));
  // The last one lies behind one that was read before, but not just before.
  for (const file of [40, 10, 30, 11]) {
    const asked = readThrough(policy, file * 8 * MIB, (file + 1) * 8 * MIB);
    assert.equal(reach(asked), (file + 1) * 8 * MIB, `file ${file}`);
  }
});

test('whoever goes on from file to file keeps the window, which reaches further into what follows each time', () => {
  const policy = createReadahead(filesOf(4 * MIB));
  const asked: ByteRange[] = [];
  const beyond = Array.from({ length: 8 }, (_, file) => {
    const end = (file + 1) * 4 * MIB;
    asked.push(...readThrough(policy, file * 4 * MIB, end));
    return (reach(asked) - end) / MIB;
  });
  assert.deepEqual(beyond.slice(0, 5), [0, 1, 2, 4, 8]);
  assert.ok(
    beyond.slice(5).every((mib) => mib >= 8 && mib <= 16),
    `${beyond}`,
  );
  const first = policy.onFault({ offset: 400 * MIB, length: 4096 }, AMPLE);
  assert.equal(first, undefined);
  const elsewhere = policy.onFault({ offset: 400 * MIB + 4096, length: 4096 }, AMPLE);
  assert.deepEqual(elsewhere, { offset: 400 * MIB + 8192, length: MIB }, 'a reader elsewhere starts anew');
});
