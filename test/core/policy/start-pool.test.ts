import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createStartPool } from '../../../src/core/policy/start-pool.ts';

const MIB = 1024 * 1024;

/** Everything a pool gives, as "layer@MiB". */
function drain(layers: readonly string[], init: { isShared: boolean; node?: string; hintMib?: number }): string[] {
  const hintBytes = (init.hintMib ?? 32) * MIB;
  const pool = createStartPool<string>();
  for (const layer of layers) {
    const seed = `${init.node ?? 'a'} ${layer}`;
    pool.add(layer, { deviceSize: 128 * MIB, hintBytes, recorded: [], seed, isShared: init.isShared });
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

test('a crowd begins with few pieces, the first of all layers, and spreads over all of them', () => {
  const layers = Array.from({ length: 8 }, (_, index) => `layer ${index}`);
  const nodes = Array.from({ length: 50 }, (_, index) => `node ${index}`);
  const orders = nodes.map((node) => drain(layers, { isShared: true, node, hintMib: 64 }));
  const wanted = (place: number): Set<string> => new Set(orders.map((order) => order[place] as string));
  assert.equal(wanted(0).size <= 16, true);
  for (const piece of wanted(0)) assert.match(piece, /^layer \d@[04]$/);
  assert.ok(wanted(0).size > 10, 'each node is first with something');
  assert.ok(wanted(4).size > 20);
  assert.ok(wanted(20).size > 35, `${wanted(20).size} different pieces of 50 nodes`);
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
