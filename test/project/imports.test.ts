import assert from 'node:assert/strict';
import { test } from 'node:test';
import { findViolations, unitOf } from '../../scripts/check-imports.ts';

function messages(file: string, text: string): string[] {
  return findViolations(new Map([[file, text]])).map((violation) => `${violation.line}: ${violation.message}`);
}

test('a lower layer that imports a higher one is caught, with its line', () => {
  const text = "import { a } from './digest.ts';\nimport type { b } from '../store/chunk-store.ts';\n";
  assert.deepEqual(messages('src/core/chunk.ts', text), ['2: core must not import store, which is a layer above']);
});

test('snapshot, trap and source never import each other', () => {
  for (const [from, to] of [
    ['trap', 'source'],
    ['source', 'snapshot'],
    ['snapshot', 'trap'],
  ] as const) {
    const found = messages(`src/${from}/x.ts`, `export * from '../${to}/y.ts';`);
    assert.deepEqual(found, [`1: ${from} and ${to} must not import each other`]);
  }
});

test('every way of writing an import is seen', () => {
  for (const text of [
    "import '../store/x.ts';",
    "export { x } from '../store/x.ts';",
    "const x = await import('../store/x.ts');",
    "import {\n  x,\n} from '../store/x.ts';",
    "let x: import('../store/x.ts').X;",
  ]) {
    assert.equal(messages('src/core/a.ts', text).length, 1, text);
  }
});

test('an import in a comment is no import', () => {
  assert.deepEqual(messages('src/core/a.ts', "/* import x from '../store/x.ts'; */"), []);
});

test('downward imports and imports within a unit are fine', () => {
  assert.deepEqual(messages('src/daemon.ts', "import './trap/x.ts'; import './errors.ts';"), []);
  assert.deepEqual(messages('src/snapshot/grpc/service.ts', "import { x } from '../snapshotter.ts';"), []);
  assert.deepEqual(messages('src/erofs/writer.ts', "import { x } from '../image/layer-tree.ts';"), []);
});

test('the gRPC service is a layer above the snapshotter', () => {
  assert.equal(unitOf('src/snapshot/grpc/service.ts'), 'snapshot/grpc');
  assert.equal(unitOf('src/snapshot/grpc.ts'), 'snapshot/grpc');
  assert.equal(messages('src/snapshot/snapshotter.ts', "import './grpc/service.ts';").length, 1);
});

test('the simulator sees only core, store, clock and errors; src sees neither it nor the tests', () => {
  assert.deepEqual(messages('sim/swarm.ts', "import '../src/core/x.ts'; import '../src/clock.ts';"), []);
  assert.deepEqual(messages('sim/swarm.ts', "import '../src/kernel/x.ts';"), ['1: sim must not import kernel']);
  assert.equal(messages('src/core/x.ts', "import '../../test/fakes/x.ts';").length, 1);
});

test('of the simulator, commands see its public face only, and nothing else in src sees it', () => {
  assert.deepEqual(messages('src/cli/sim.ts', "import { x } from '../../sim/index.ts';"), []);
  assert.equal(messages('src/cli/sim.ts', "import { x } from '../../sim/run.ts';").length, 1);
  assert.equal(messages('src/daemon.ts', "import { x } from '../sim/index.ts';").length, 1);
});

test('only kernel and trap may import koffi', () => {
  assert.deepEqual(messages('src/mount/x.ts', "import koffi from 'koffi';"), [
    '1: only kernel and trap may import koffi',
  ]);
  assert.deepEqual(messages('src/kernel/libc.ts', "import koffi from 'koffi';"), []);
});

test('a new folder in src must be given a layer', () => {
  assert.throws(() => unitOf('src/manager/x.ts'), /in no import layer/);
});
