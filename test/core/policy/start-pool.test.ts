import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createStartPool } from '../../../src/core/policy/start-pool.ts';

const MIB = 1024 * 1024;

/** Everything a pool gives, as "layer@MiB". */
function drain(layers: readonly string[], init: { isShared: boolean; node?: string }): string[] {
  const pool = createStartPool<string>();
  for (const layer of layers) {
    const seed = `${init.node ?? 'a'} ${layer}`;
    pool.add(layer, { deviceSize: 64 * MIB, hintBytes: 32 * MIB, recorded: [], seed, isShared: init.isShared });
  }
  const got: string[] = [];
  for (let piece = pool.next(); piece !== undefined; piece = pool.next()) {
    got.push(`${piece.layer}@${piece.run.offset / MIB}`);
  }
  return got;
}

test('a start that is not shared goes layer by layer, each from its beginning', () => {
  const got = drain(['x', 'y'], { isShared: false });
  assert.deepEqual(
    got,
    ['x', 'y'].flatMap((layer) => [0, 4, 8, 12, 16, 20, 24, 28].map((at) => `${layer}@${at}`)),
  );
});

test('a shared start gives every piece of all layers once, mixed, in another order on another node', () => {
  const layers = ['w', 'x', 'y', 'z'];
  const [a, again, b] = [
    drain(layers, { isShared: true }),
    drain(layers, { isShared: true }),
    drain(layers, { isShared: true, node: 'b' }),
  ];
  assert.deepEqual(a, again);
  assert.deepEqual(a.toSorted(), b.toSorted());
  assert.equal(new Set(a).size, 32);
  // The first quarter is of several layers, and not the same on both nodes.
  assert.ok(new Set(a.slice(0, 8).map((piece) => piece[0])).size >= 3);
  assert.ok(a.slice(0, 8).filter((piece) => b.slice(0, 8).includes(piece)).length < 6);
});

test('a layer that fails is forgotten, the others are not', () => {
  for (const isShared of [true, false]) {
    const pool = createStartPool<string>();
    for (const layer of ['x', 'y']) {
      pool.add(layer, { deviceSize: 8 * MIB, hintBytes: 8 * MIB, recorded: [], seed: layer, isShared });
    }
    pool.drop('x');
    assert.deepEqual([pool.next()?.layer, pool.next()?.layer, pool.next()], ['y', 'y', undefined]);
  }
});
