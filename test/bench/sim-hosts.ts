/**
 * The simulator against hosts of their own (network namespaces behind `tc tbf`, real containerd and shoal): one host's
 * start is recorded (without prefetch, or it would not read cold), then all start the same cold image together, for real
 * and simulated from the recording. `npm run bench -- sim-hosts [--image model|python] [--hosts N] [--registry MBIT]
 * [--rate MBIT] [--keep FILE]`. The container reads a model of 64 MiB, or starts Python: hundreds of small chunks, for which
 * the hosts share this machine's processors, as simulated. Wants a quiet machine. Fails when time, registry egress or
 * bytes from neighbours differ by more than 15 %.
 */
import { writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { cpuTime } from '../../src/lazy/cpu-time.ts';
import { type HostFacts, type LabHost, type LabHosts, withHosts } from '../lab/hosts.ts';
import { connected, spent, swarmSection } from '../lab/swarm.ts';
import { processUsage } from './support/process-usage.ts';
import { type Recorded, recordStart, simulateStarts } from './support/recorded-start.ts';
import { prepareStart } from './support/starts.ts';

const { values } = parseArgs({
  options: {
    image: { type: 'string', default: 'model' },
    hosts: { type: 'string', default: '8' },
    registry: { type: 'string', default: '20' },
    rate: { type: 'string', default: '1000' },
    keep: { type: 'string' },
  },
});
const COUNT = Number(values.hosts);
const MIB = 1024 * 1024;
const TOLERANCE = 0.15;
/** How long the machine is watched while nothing starts. */
const BACKGROUND_MS = 2_000;
/** Processors that may be busy meanwhile: other work would slow the hosts down. */
const MOST_BACKGROUND = 0.2;
const { storage, image, script } = await prepareStart(values.image);

interface Outcome {
  readonly ms: number;
  readonly registry: number;
  readonly neighbour: number;
}

function configOf(host: HostFacts): string {
  return `${swarmSection(host)}\n[fetch]\nprefetch = false\n`;
}

function lab<T>(count: number, use: (lab: LabHosts) => Promise<T>): Promise<T> {
  const rates = { rate: `${values.rate}mbit`, registryRate: `${values.registry}mbit` };
  return withHosts({ count, storage, ...rates, config: configOf }, async (hosts) => {
    await connected(hosts, hosts.hosts, count - 1);
    return await use(hosts);
  });
}

async function start(host: LabHost, { registry }: LabHosts): Promise<void> {
  const { status, stderr } = await host.run(`${registry}/${image}`, script);
  if (status !== 0) throw new Error(`the container of ${host.name} failed: ${stderr}`);
}

/** The cold reads of one host alone, and what processors did: without the registry, which is elsewhere, and other work. */
async function record(): Promise<Recorded> {
  return await lab(1, async (one) => {
    const [host] = one.hosts as [LabHost];
    await host.pull(`${one.registry}/${image}`);
    const registryMs = (): number => 1_000 * processUsage(one.registryPid).cpuSeconds;
    const idleBefore = cpuTime().machineMs;
    await sleep(BACKGROUND_MS);
    const background = (cpuTime().machineMs - idleBefore) / BACKGROUND_MS;
    if (background > MOST_BACKGROUND)
      throw new Error(`the machine is not quiet: ${background.toFixed(2)} processors busy`);
    const before = registryMs();
    const begun = performance.now();
    const recorded = await recordStart(host, () => start(host, one));
    const ms = performance.now() - begun;
    const elsewhereMs = registryMs() - before + background * recorded.ms;
    const lines = recorded.lines.map((line) =>
      line.kind === 'cpu' ? { ...line, machineMs: Number(line.machineMs) - elsewhereMs } : line,
    );
    console.log(
      `one host alone: ${ms.toFixed(0)} ms, its last cold read after ${recorded.ms.toFixed(0)} ms, ${recorded.chunks} chunks`,
    );
    console.log(JSON.stringify(lines.find(({ kind }) => kind === 'cpu')), `beside ${elsewhereMs.toFixed(0)} ms`);
    return { ...recorded, lines };
  });
}

async function real(): Promise<Outcome> {
  return await lab(COUNT, async (many) => {
    let ms = 0;
    // Manifests and indexes are not simulated.
    await Promise.all(many.hosts.map((host) => host.pull(`${many.registry}/${image}`)));
    const bill = await spent(many.hosts, async () => {
      const begun = performance.now();
      await Promise.all(many.hosts.map((host) => start(host, many)));
      ms = performance.now() - begun;
    });
    for (const { name, status } of many.hosts) console.log(name, JSON.stringify((await status()).swarm?.claims));
    console.log(
      `distinct ${bill.distinctBytes}, by source ${JSON.stringify(bill.bytes)}, fetched ${bill.fetchedBytes}`,
    );
    return { ms, registry: bill.fetchedBytes, neighbour: bill.bytes.neighbour ?? 0 };
  });
}

async function simulated(recorded: Recorded): Promise<Outcome> {
  const result = await simulateStarts(recorded, {
    hosts: COUNT,
    rate: values.rate,
    registryRate: values.registry,
    nodes: `cores = ${availableParallelism()}\nper_machine = ${COUNT}`,
  });
  return { ms: result.totalMs, registry: result.bytes.registry, neighbour: result.bytes.neighbour };
}

const recorded = await record();
if (values.keep !== undefined) {
  writeFileSync(values.keep, recorded.lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
}
const [measured, modelled] = [await real(), await simulated(recorded)];
let worst = 0;
for (const [name, key, unit] of [
  ['until all have printed, s', 'ms', 1_000],
  ['from the registry, MiB', 'registry', MIB],
  ['from neighbours, MiB', 'neighbour', MIB],
] as const) {
  const ratio = modelled[key] / measured[key];
  worst = Math.max(worst, Math.abs(ratio - 1));
  const figures = [measured[key] / unit, modelled[key] / unit].map((value) => value.toFixed(2).padStart(9));
  console.log(`${name.padEnd(28)} real ${figures[0]}  simulated ${figures[1]}  ratio ${ratio.toFixed(3)}`);
}
process.exitCode = worst > TOLERANCE ? 1 : 0;
