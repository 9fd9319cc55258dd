import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createCatalog } from '../../sim/workload/image.ts';
import { parseTrace } from '../../sim/workload/trace.ts';
import { ChunkTableBuilder } from '../../src/core/chunk-table-builder.ts';
import { type Digest, sha256 } from '../../src/core/digest.ts';
import { busyMs } from '../../src/lazy/cpu-time.ts';
import { createFaultTrace, type TraceLine } from '../../src/lazy/fault-trace.ts';
import type { BlobDevice } from '../../src/store/blob-device.ts';

const CHUNK = 65_536;
const BLOB = sha256('layer');

/** A device of four chunks whose fills take the time that `clock` is moved by; `has`: rows that are there. */
function device(blob: Digest, has: ReadonlySet<number>, fill: BlobDevice['fill']): BlobDevice {
  const builder = new ChunkTableBuilder({ compressedSize: 2 * CHUNK });
  for (let row = 0; row < 4; row += 1) {
    builder.add({
      deviceOffset: row * CHUNK,
      length: CHUNK,
      digest: sha256(`${blob}/${row}`),
      extentOffset: (row * CHUNK) / 2,
      extentLength: CHUNK / 2,
      codec: 'gzip',
      innerOffset: 0,
    });
  }
  const info = { format: 'estargz', size: 2 * CHUNK, sources: [] };
  return {
    blob,
    name: blob,
    table: builder.build(),
    info,
    fill,
    hasChunk: (row: number) => has.has(row),
  } as unknown as BlobDevice;
}

function setup() {
  let now = 500;
  const has = new Set<number>();
  const clock = { nowMs: () => now };
  const used = { machineMs: 70_000, daemonMs: 300 };
  const imagesOf = (blob: Digest): string[] => (blob === BLOB ? ['app'] : ['other']);
  const trace = createFaultTrace({ clock, imagesOf, cpu: () => ({ ...used }) });
  const call = (body: unknown): TraceLine[] => {
    const [route] = trace.routes;
    const answer = route?.handle({ body, query: new URLSearchParams(), signal: new AbortController().signal });
    return [...(answer as { lines: TraceLine[] }).lines];
  };
  const read = async (blob: Digest, offset: number, length: number, ms: number): Promise<void> => {
    const watched = trace.watch(
      device(blob, has, async () => {
        now += ms;
      }),
    );
    await watched?.fill(offset, length, { signal: new AbortController().signal });
  };
  return { trace, call, read, has, used, wait: (ms: number) => (now += ms) };
}

test('a recording has each layer once and each cold chunk with its time and the time before it', async () => {
  const { call, read, wait } = setup();
  await read(BLOB, 0, CHUNK, 5);
  call({ do: 'start' });
  wait(10);
  await read(BLOB, CHUNK, 2 * CHUNK, 20);
  wait(7);
  await read(BLOB, 0, 4_096, 3);
  const [layer, ...reads] = call({ do: 'stop' });
  assert.deepEqual(layer, { kind: 'layer', blob: BLOB, rows: 4, bytes: 4 * CHUNK, compressedBytes: 2 * CHUNK });
  const shown = reads.map((line) => line.kind === 'read' && [line.row, line.atMs, line.answeredMs, line.thinkMs]);
  assert.deepEqual(shown, [
    [1, 10, 30, 10],
    [2, 10, 30, 10],
    [0, 37, 40, 7],
  ]);
});

test('only reads of the image that was asked for are recorded', async () => {
  const { call, read } = setup();
  call({ do: 'start', image: 'app' });
  await read(sha256('another layer'), 0, CHUNK, 1);
  await read(BLOB, 0, CHUNK, 1);
  const lines = call({ do: 'take' });
  assert.deepEqual(
    lines.map((line) => line.kind !== 'cpu' && line.blob),
    [BLOB, BLOB],
  );
  assert.deepEqual(call({ do: 'take' }), []);
});

test('without a recording nothing is kept, and taking from none is an error', async () => {
  const { call, read } = setup();
  await read(BLOB, 0, CHUNK, 1);
  assert.throws(() => call({ do: 'take' }), { code: 'FAILED_PRECONDITION' });
  assert.throws(() => call({ do: 'jump' }), { code: 'INVALID_ARGUMENT' });
});

test('what was recorded can be simulated: same chunks, same order, same think time', async () => {
  const { call, read, wait } = setup();
  call({ do: 'start' });
  wait(10);
  await read(BLOB, 2 * CHUNK, CHUNK, 20);
  wait(7);
  await read(BLOB, 0, CHUNK, 3);
  const text = call({ do: 'stop' })
    .map((line) => JSON.stringify(line))
    .join('\n');
  const image = parseTrace(createCatalog(), text, { name: 'app', path: 'start.jsonl' });
  assert.ok(image.reads.kind === 'trace');
  const { chunk, after, thinkMs } = image.reads.plan;
  const digests = [...chunk].map((at) => image.chunks[at]?.digest);
  assert.deepEqual(digests, [sha256(`${BLOB}/2`), sha256(`${BLOB}/0`)]);
  assert.deepEqual([...after], [0, 1]);
  assert.deepEqual([...thinkMs], [10, 7]);
  assert.equal(image.readBytes, 2 * CHUNK);
  // What was never read counts for those who pull whole layers.
  assert.equal(image.bytes, 4 * CHUNK);
  assert.equal(image.compressedBytes, 2 * CHUNK);
});

test('chunks that came without a reader are told at the end, and fetched with the read they lie behind', async () => {
  const { call, read, has } = setup();
  has.add(0);
  call({ do: 'start' });
  await read(BLOB, CHUNK, CHUNK, 5);
  has.add(1).add(3);
  const lines = call({ do: 'stop' });
  const shown = lines.map((line) => [line.kind, 'row' in line ? line.row : undefined]);
  assert.deepEqual(shown, [
    ['layer', undefined],
    ['read', 1],
    ['ahead', 3],
  ]);
  const text = lines.map((line) => JSON.stringify(line)).join('\n');
  const image = parseTrace(createCatalog(), text, { name: 'app', path: 'start.jsonl' });
  assert.ok(image.reads.kind === 'trace');
  const rowsAhead = [...image.reads.ahead].map(([at, ahead]) => [at, ahead].flat().map((place) => image.chunks[place]));
  assert.deepEqual(
    rowsAhead.map((chunks) => chunks.map((chunk) => chunk?.digest)),
    [[sha256(`${BLOB}/1`), sha256(`${BLOB}/3`)]],
  );
});

test('a recording that is not one is refused by line', () => {
  const parse = (text: string) => () => parseTrace(createCatalog(), text, { name: 'app', path: 't.jsonl' });
  assert.throws(parse(''), /t.jsonl: no read was recorded/);
  assert.throws(parse('{}'), /t.jsonl line 1: "kind" must be layer, read, ahead or cpu/);
  assert.throws(parse('\nnot json'), /t.jsonl line 2: not JSON/);
  assert.throws(parse('{"kind":"layer","blob":"x","rows":1,"bytes":1,"compressedBytes":1}'), /not a digest/);
  assert.throws(parse('{"kind":"layer","rows":-1}'), /"rows" must be a number of at least 0/);
});

test('what processors did until the last answer is told at the end, and says how many a container keeps busy', async () => {
  const { call, read, wait, used } = setup();
  call({ do: 'start' });
  wait(20);
  used.machineMs += 70;
  used.daemonMs += 10;
  await read(BLOB, 0, CHUNK, 5);
  used.machineMs += 1_000;
  const lines = call({ do: 'stop' });
  assert.deepEqual(lines.at(-1), { kind: 'cpu', machineMs: 70, daemonMs: 10 });
  const text = lines.map((line) => JSON.stringify(line)).join('\n');
  const parsed = (from: string) => {
    const { reads } = parseTrace(createCatalog(), from, { name: 'app', path: 'start.jsonl' });
    return reads.kind === 'trace' ? reads.plan.cores : undefined;
  };
  // 60 ms of processors in 20 ms; one where an older recording does not say.
  assert.equal(parsed(text), 3);
  assert.equal(
    parsed(
      lines
        .slice(0, -1)
        .map((line) => JSON.stringify(line))
        .join('\n'),
    ),
    1,
  );
  assert.throws(() => parsed(text.replace('"daemonMs":10', '"daemonMs":-1')), /start.jsonl line 3: "daemonMs" must be/);
});

test('busy time is read from the first line of /proc/stat: not idle, not waiting for disks', () => {
  assert.equal(busyMs('cpu  100 20 30 4000 500 6 7 80 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n'), 1_630);
});
