import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createReadahead } from '../../src/core/policy/readahead.ts';

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
