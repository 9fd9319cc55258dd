import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { edgeAfter, fileEdges, LARGE_FILE_BYTES } from '../../src/core/policy/file-edges.ts';

const HALF = LARGE_FILE_BYTES / 2;

test('edges are where large files begin and end, not inside one and not around small ones', () => {
  const runs = fc.array(
    fc.record({ start: fc.nat(40), length: fc.integer({ min: 1, max: 12 }) }).map(({ start, length }) => ({
      start: start * HALF,
      end: (start + length) * HALF,
    })),
    { maxLength: 12 },
  );
  fc.assert(
    fc.property(runs, (files) => {
      const large = files.filter(({ start, end }) => end - start >= LARGE_FILE_BYTES);
      const places = new Set(large.flatMap(({ start, end }) => [start, end]));
      const expected = [...places]
        .filter((at) => !large.some(({ start, end }) => start < at && at < end))
        .sort((a, b) => a - b);
      assert.deepEqual(fileEdges(files), expected);
    }),
    { numRuns: 1000 },
  );
});

test('the edge after a place is the first one behind it', () => {
  const edges = Uint32Array.of(0, 10, 20);
  assert.deepEqual(
    [0, 9, 10, 19, 20].map((at) => edgeAfter(edges, at)),
    [10, 10, 20, 20, Number.POSITIVE_INFINITY],
  );
  assert.equal(edgeAfter([], 0), Number.POSITIVE_INFINITY);
});
