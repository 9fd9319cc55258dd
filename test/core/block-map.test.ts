import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BlockMap, blocksPresent } from '../../src/core/block-map.ts';

test('a block map behaves like an array of booleans', () => {
  const step = fc.record({ set: fc.boolean(), first: fc.nat(300), length: fc.nat(80) });
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 300 }), fc.array(step, { maxLength: 30 }), (blockCount, steps) => {
      const map = new BlockMap(blockCount);
      const model = new Array<boolean>(blockCount).fill(false);
      for (const { set, first, length } of steps) {
        if (set) map.setRange(first, first + length);
        else map.clearRange(first, first + length);
        for (let i = first; i < Math.min(first + length, blockCount); i += 1) model[i] = set;
        assert.equal(map.missing, model.filter((present) => !present).length);
        assert.equal(map.complete, model.every(Boolean));
        const end = Math.min(first + length, blockCount);
        const inside = first + length <= blockCount;
        assert.equal(map.hasRange(first, first + length), inside && model.slice(first, end).every(Boolean));
        assert.equal(blocksPresent(map.bytes, 0, blockCount), model.every(Boolean));
      }
      const again = new BlockMap(blockCount, map.bytes);
      assert.equal(again.missing, map.missing);
      assert.deepEqual(again.bytes, map.bytes);
    }),
  );
});

test('bits past the last block in restored bytes are not believed', () => {
  const map = new BlockMap(11, new Uint8Array(5).fill(0xff));
  assert.equal(map.missing, 0);
  assert.equal(map.bytes[1], 0b111);
  assert.equal(new BlockMap(0, Uint8Array.of(0xff)).missing, 0);
  assert.equal(new BlockMap(100, Uint8Array.of(0xff)).missing, 92, 'a short copy leaves the rest absent');
});
