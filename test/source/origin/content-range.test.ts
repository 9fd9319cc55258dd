import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { systemClock } from '../../../src/clock.ts';
import { parseContentLength, parseContentRange } from '../../../src/source/origin/content-range.ts';
import { parseRetryAfter } from '../../../src/source/origin/retry.ts';

test('a Content-Range that makes sense is read, one that does not is not', () => {
  assert.deepEqual(parseContentRange('bytes 0-9/10'), { first: 0, last: 9, total: 10 });
  assert.deepEqual(parseContentRange('Bytes 5-5/*'), { first: 5, last: 5, total: undefined });
  for (const bad of [
    undefined,
    '',
    'bytes */10',
    'bytes 9-0/10',
    'bytes 0-10/10',
    'bytes 0-9',
    'bytes=0-9/10',
    'bytes -1-9/10',
    'bytes 0-9/10 ',
    'bytes 0-0x9/10',
    'bytes 0-9007199254740993/9007199254740994',
  ]) {
    assert.equal(parseContentRange(bad), undefined, bad);
  }
});

test('whatever is read as Content-Range lies within its total', () => {
  const part = fc.oneof(fc.nat().map(String), fc.bigInt().map(String), fc.constantFrom('*', '', '-', '0'));
  const shaped = fc.tuple(part, part, part).map(([first, last, total]) => `bytes ${first}-${last}/${total}`);
  fc.assert(
    fc.property(fc.oneof(fc.string(), shaped), (header) => {
      const range = parseContentRange(header);
      if (range === undefined) return;
      assert.ok(Number.isSafeInteger(range.first) && range.first >= 0 && range.first <= range.last);
      assert.ok(range.total === undefined || range.last < range.total);
    }),
    { numRuns: 2000 },
  );
});

test('Content-Length and Retry-After are numbers, or nothing', () => {
  assert.equal(parseContentLength('10'), 10);
  for (const bad of [undefined, '', '-1', '1e3', '0x10', '10, 10', ' 10', '99999999999999999'])
    assert.equal(parseContentLength(bad), undefined);
  const clock = { ...systemClock, wallTimeMs: () => Date.parse('Sun, 06 Nov 1994 08:49:30 GMT') };
  assert.equal(parseRetryAfter('7', clock), 7000);
  assert.equal(parseRetryAfter('Sun, 06 Nov 1994 08:49:37 GMT', clock), 7000);
  assert.equal(parseRetryAfter('Sun, 06 Nov 1994 08:49:00 GMT', clock), 0);
  for (const bad of [undefined, 'soon', '-', 'x'.repeat(100)]) assert.equal(parseRetryAfter(bad, clock), undefined);
});
