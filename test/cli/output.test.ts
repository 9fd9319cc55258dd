import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { bar, humanBytes, paint, percent, printable, table } from '../../src/cli/output.ts';

test('bytes are shown with three digits at most and the unit that fits', () => {
  const shown = [0, 999, 1000, 1536, 102_400, 1_048_576, 1_073_741_824, 5 * 1024 ** 4].map(humanBytes);
  assert.deepEqual(shown, ['0 B', '999 B', '1.0 KiB', '1.5 KiB', '100 KiB', '1.0 MiB', '1.0 GiB', '5.0 TiB']);
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 49 }), (bytes) => /^[\d.]{1,4} [KMGT]?i?B$/.test(humanBytes(bytes))),
  );
});

test('100 % means all of it', () => {
  assert.equal(percent(999, 1000), '99 %');
  assert.equal(percent(1000, 1000), '100 %');
  assert.equal(percent(0, 0), '100 %');
  assert.equal(bar(999, 1000, 4), '███░');
});

test('columns line up, colours take no room, nothing trails', () => {
  const red = paint({ hasColour: true }, 'red', 'ab');
  const text = table(
    [
      ['a', '1', 'x'],
      [red, '22', ''],
    ],
    [1],
  );
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colours are looked through
  assert.equal(text.replace(/\u001b\[\d+m/g, ''), 'a    1  x\nab  22\n');
});

test('text from outside can not move the cursor', () => {
  assert.equal(printable('a\u001b[2Jb\rc\u009bd'), 'a\u{fffd}[2Jb\u{fffd}c\u{fffd}d');
});

test('colours are for terminals', () => {
  assert.equal(paint({ hasColour: false }, 'red', 'x'), 'x');
});
