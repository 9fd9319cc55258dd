import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseDigest } from '../../src/core/digest.ts';
import { openImageRecords } from '../../src/lazy/images.ts';
import type { TextDb } from '../../src/lazy/text-db.ts';

function memoryDb(rows: Map<string, string>): TextDb {
  return {
    get: async (key) => rows.get(key),
    put: async (key, value) => void rows.set(key, value),
    del: async (key) => void rows.delete(key),
    async *iterator() {
      yield* rows;
    },
  };
}

const [OLD, NEW, PLAIN] = ['1', '2', '3'].map((digit) => parseDigest(`sha256:${digit.repeat(64)}`)) as [
  ReturnType<typeof parseDigest>,
  ReturnType<typeof parseDigest>,
  ReturnType<typeof parseDigest>,
];

test('an image forgets lazy layers that are gone, and is forgotten with the last, on disk as well', async () => {
  const rows = new Map<string, string>();
  const images = await openImageRecords(memoryDb(rows));
  images.note('app', undefined, { digest: OLD, lazy: true });
  images.note('app', undefined, { digest: PLAIN, lazy: false, reason: 'not eStargz' });
  images.note('app', undefined, { digest: NEW, lazy: true });
  images.note('gone', undefined, { digest: OLD, lazy: true });
  images.note('plain', undefined, { digest: PLAIN, lazy: false });
  await images.retain(new Set([NEW]));
  await images.flush();
  const expected = [
    ['app', [PLAIN, NEW]],
    ['plain', [PLAIN]],
  ];
  const shown = (list: Awaited<ReturnType<typeof openImageRecords>>) =>
    list.list().map(({ reference, layers }) => [reference, layers.map(({ digest }) => digest)]);
  assert.deepEqual(shown(images), expected);
  assert.deepEqual(shown(await openImageRecords(memoryDb(rows))), expected);
});
