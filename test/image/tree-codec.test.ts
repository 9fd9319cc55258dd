import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { hasCode } from '../../src/errors.ts';
import { type ByteString, type DirNode, emptyDir, type LayerTree, type TreeNode } from '../../src/image/layer-tree.ts';
import { decodeTree, encodeTree } from '../../src/image/tree-codec.ts';
import { arbitraryTree } from '../erofs/arbitrary-tree.ts';
import { describeTree } from '../erofs/describe-tree.ts';

test('any tree decodes to what was encoded, extents as they were, hard links one object', () => {
  fc.assert(
    fc.property(arbitraryTree({ whiteouts: true }), (tree) => {
      const decoded = decodeTree(encodeTree(tree));
      assert.deepEqual(
        describeTree(decoded, (file) => file.extents),
        describeTree(tree, (file) => file.extents),
      );
      assert.deepEqual(encodeTree(decoded), encodeTree(tree));
    }),
    { numRuns: 300 },
  );
});

test('numbers keep their value up to 53 bits', () => {
  const root = emptyDir({ mtimeSec: Number.MIN_SAFE_INTEGER / 2 + 0.5, mtimeNsec: 999_999_999, uid: 2 ** 32 - 1 });
  const size = Number.MAX_SAFE_INTEGER;
  root.children.set('f' as ByteString, { ...emptyDir(), kind: 'file', size, extents: [] } as TreeNode);
  const decoded = decodeTree(encodeTree({ root })).root;
  assert.equal(decoded.mtimeSec, root.mtimeSec);
  assert.equal(decoded.uid, 2 ** 32 - 1);
  assert.equal((decoded.children.get('f' as ByteString) as { size?: number }).size, size);
});

test('a number that is no unsigned integer is refused when encoding', () => {
  assert.throws(
    () => encodeTree({ root: emptyDir({ uid: -1 }) }),
    (error) => hasCode(error, 'INVALID_ARGUMENT'),
  );
  assert.throws(
    () => encodeTree({ root: emptyDir({ mtimeSec: 0.25 }) }),
    (error) => hasCode(error, 'INVALID_ARGUMENT'),
  );
});

test('a tree 5000 directories deep is coded without recursion', () => {
  const root = emptyDir();
  let dir: DirNode = root;
  for (let depth = 0; depth < 5000; depth += 1) {
    const next = emptyDir();
    dir.children.set('d' as ByteString, next);
    dir = next;
  }
  const bytes = encodeTree({ root });
  assert.deepEqual(encodeTree(decodeTree(bytes)), bytes);
});

test('every cut and every flipped byte of a stored tree is STATE_CORRUPT', () => {
  const [tree] = fc.sample(arbitraryTree({ whiteouts: true }), { numRuns: 1, seed: 7 }) as [LayerTree];
  const bytes = encodeTree(tree);
  for (let at = 0; at < bytes.byteLength; at += 1) {
    const damaged = Uint8Array.from(bytes);
    damaged[at] = (damaged[at] as number) ^ 0x41;
    for (const bad of [damaged, bytes.subarray(0, at)]) {
      assert.throws(
        () => decodeTree(bad),
        (error) => hasCode(error, 'STATE_CORRUPT'),
        `byte ${at}`,
      );
    }
  }
});

test('damage behind a matching checksum gives a tree or STATE_CORRUPT, never another error or a long wait', () => {
  fc.assert(
    fc.property(
      arbitraryTree({ whiteouts: true }),
      fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { minLength: 1, maxLength: 10 }),
      (tree, damage) => {
        const bytes = Uint8Array.from(encodeTree(tree));
        for (const [at, value] of damage) bytes[12 + (at % (bytes.byteLength - 12))] = value;
        new DataView(bytes.buffer).setUint32(8, crc32(bytes.subarray(12)), true);
        try {
          decodeTree(bytes);
        } catch (error) {
          assert.ok(hasCode(error, 'STATE_CORRUPT'), String(error));
        }
      },
    ),
    { numRuns: 1000 },
  );
});
