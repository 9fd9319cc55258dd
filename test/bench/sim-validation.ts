/**
 * The simulator against the daemon's own code: nodes that read one cold layer together, once for real (blob stores,
 * neighbours, claims and TLS in this process, a registry behind a slow link) and once simulated.
 * `npm run bench -- sim-validation [--nodes N] [--chunks N]`. Fails when bytes differ by more than 15 %, or time does on
 * a machine that is not busy (`--time`).
 */
import { parseArgs } from 'node:util';
import { runPolicy } from '../../sim/run.ts';
import { parseScenario } from '../../sim/scenario/parse.ts';
import { systemClock } from '../../src/clock.ts';
import type { Digest } from '../../src/core/digest.ts';
import { createOriginStore } from '../../src/source/origin/origin-store.ts';
import { createMemoryHub } from '../../src/source/peer/memory-directory.ts';
import { type Member, startMember } from '../source/peer/data/member.ts';
import { FakeRangedBlob, randomChunks, testBlob } from '../store/blob-fixture.ts';

const { values } = parseArgs({
  options: {
    nodes: { type: 'string', default: '8' },
    chunks: { type: 'string', default: '96' },
    time: { type: 'boolean', default: false },
  },
});
const NODES = Number(values.nodes);
const CHUNKS = Number(values.chunks);
const CHUNK_BYTES = 256 * 1024;
/** The registry's link and latency. */
const BYTES_PER_MS = 6_000;
const LATENCY_MS = 5;
const TOLERANCE = 0.15;

interface Outcome {
  readonly ms: number;
  readonly registry: number;
  readonly neighbour: number;
  /** Most bytes that one node sent to others. */
  readonly busiest: number;
}

async function real(): Promise<Outcome> {
  const hub = createMemoryHub({ clock: systemClock });
  const blob = testBlob(randomChunks(CHUNKS, CHUNK_BYTES));
  const ranged = new FakeRangedBlob(blob);
  const read = ranged.read.bind(ranged);
  let registry = 0;
  let freeAtMs = 0;
  ranged.read = async (offset, length, options) => {
    registry += length;
    const now = performance.now();
    freeAtMs = Math.max(now + LATENCY_MS, freeAtMs) + length / BYTES_PER_MS;
    await systemClock.sleep(freeAtMs - now, { signal: options.signal });
    return await read(offset, length, options);
  };
  await using stack = new AsyncDisposableStack();
  const members: Member[] = [];
  for (let node = 0; node < NODES; node += 1) {
    const outsideOf = (blobs: Member['blobs']) =>
      createOriginStore({ blobs: { table: (id: Digest) => blobs.opened(id)?.table, ranged: () => ranged } });
    members.push(stack.use(await startMember(hub, { outsideOf })));
  }
  const devices = await Promise.all(members.map((member) => member.open(blob)));
  const begunMs = performance.now();
  await Promise.all(
    devices.map(async (device) => {
      for (let offset = 0; offset < device.size; offset += CHUNK_BYTES) {
        await device.fill(offset, CHUNK_BYTES, { signal: AbortSignal.timeout(120_000) });
      }
    }),
  );
  const ms = performance.now() - begunMs;
  const served = members.map(({ plane }) => plane.stats().uploads.bytes);
  const neighbour = members.reduce((sum, { counters }) => sum + counters.neighbour.bytes, 0);
  return { ms, registry, neighbour, busiest: Math.max(...served) };
}

async function simulated(): Promise<Outcome> {
  const text = `
title = "Does it agree?"
[nodes]
count = ${NODES}
up_mbit_per_s = 8000
down_mbit_per_s = 8000
latency_ms = 0.05
[registry]
egress_mbit_per_s = ${(BYTES_PER_MS * 8) / 1_000}
latency_ms = ${LATENCY_MS}
[image.layer]
size_mib = ${(CHUNKS * CHUNK_BYTES) / 1024 / 1024}
layers = 1
chunk_kib = ${CHUNK_BYTES / 1024}
file_kib = ${(CHUNKS * CHUNK_BYTES) / 1024}
[arrival.all]
image = "layer"
`;
  const scenario = parseScenario(text, { name: 'sim-validation' });
  const result = await runPolicy(scenario, 'shoal', { path: 'sim-validation', signal: new AbortController().signal });
  const { bytes, totalMs, servedPerNode } = result;
  return { ms: totalMs, registry: bytes.registry, neighbour: bytes.neighbour, busiest: servedPerNode.max };
}

const [measured, modelled] = [await real(), await simulated()];
const MIB = 1024 * 1024;
let worst = 0;
for (const [name, key, isJudged] of [
  ['from the registry, MiB', 'registry', true],
  ['from neighbours, MiB', 'neighbour', true],
  ['sent by the busiest node, MiB', 'busiest', false],
  ['until all are done, s', 'ms', values.time],
] as const) {
  const unit = key === 'ms' ? 1_000 : MIB;
  const ratio = modelled[key] / measured[key];
  if (isJudged) worst = Math.max(worst, Math.abs(ratio - 1));
  const figures = [measured[key] / unit, modelled[key] / unit].map((value) => value.toFixed(2).padStart(9));
  console.log(`${name.padEnd(30)} real ${figures[0]}  simulated ${figures[1]}  ratio ${ratio.toFixed(3)}`);
}
process.exitCode = worst > TOLERANCE ? 1 : 0;
