/**
 * What the work of a daemon costs that has just begun (FRESH in sim/cost-model.ts), on two real hosts of the lab:
 * `npm run bench -- fresh-daemon [--runs N]`. One host alone starts Python: chunks from the registry. Then one of two
 * does, while the other only answers claims and searches: messages. Then that other one does: chunks given and taken.
 * How many messages those are the simulator says. Wants a quiet machine; medians of some runs.
 */
import { parseArgs } from 'node:util';
import { COST } from '../../sim/cost-model.ts';
import { type HostFacts, type LabHost, type LabHosts, withHosts } from '../lab/hosts.ts';
import { connected, settled, swarmSection } from '../lab/swarm.ts';
import { processUsage } from './support/process-usage.ts';
import { type Recorded, recordStart, simulateStarts } from './support/recorded-start.ts';
import { prepareStart } from './support/starts.ts';

const { values } = parseArgs({ options: { runs: { type: 'string', default: '3' } } });
const RATES = { rate: '1000', registryRate: '100' };
const { storage, image, script } = await prepareStart('python');

function lab<T>(count: number, use: (hosts: readonly LabHost[], all: LabHosts) => Promise<T>): Promise<T> {
  const config = (host: HostFacts): string => `${swarmSection(host)}\n[fetch]\nprefetch = false\n`;
  const rates = { rate: `${RATES.rate}mbit`, registryRate: `${RATES.registryRate}mbit` };
  return withHosts({ count, storage, ...rates, config }, async (all) => {
    await connected(all, all.hosts, count - 1);
    await Promise.all(all.hosts.map((host) => host.pull(`${all.registry}/${image}`)));
    return await use(all.hosts, all);
  });
}

/** Processor ms of each host's daemon while one starts its container, and until all have come to rest. */
async function spentBy(hosts: readonly LabHost[], start: () => Promise<unknown>): Promise<number[]> {
  const used = (): number[] => hosts.map(({ shoal }) => 1_000 * processUsage(shoal.daemon.pid).cpuSeconds);
  const before = used();
  await start();
  await settled(hosts);
  return used().map((ms, at) => ms - (before[at] as number));
}

/** Messages of two nodes, one of which starts; and of both, one after the other. Requests for chunks are none. */
async function messages(recorded: Recorded, more: string): Promise<number> {
  const counted = await simulateStarts(recorded, { hosts: 2, ...RATES, more });
  return Object.entries(counted.messages).reduce((sum, [kind, count]) => (kind === 'request' ? sum : sum + count), 0);
}

async function measure(): Promise<Record<string, number>> {
  const alone = await lab(1, async (hosts, { registry }) => {
    const [host] = hosts as [LabHost];
    let recorded: Recorded | undefined;
    const [ms] = await spentBy(hosts, async () => {
      recorded = await recordStart(host, async () => void (await host.run(`${registry}/${image}`, script)));
    });
    return { ms: ms as number, recorded: recorded as Recorded };
  });
  const both = await lab(2, async (hosts, { registry }) => {
    const [first, second] = hosts as [LabHost, LabHost];
    const one = await spentBy(hosts, () => first.run(`${registry}/${image}`, script));
    const two = await spentBy(hosts, () => second.run(`${registry}/${image}`, script));
    return { coordinator: one[1] as number, server: two[0] as number, client: two[1] as number };
  });
  const { chunks, bytes, compressedBytes } = alone.recorded;
  const first = await messages(alone.recorded, 'nodes = 1');
  const second = (await messages(alone.recorded, 'nodes = 1\n[arrival.later]\nimage = "app"\nat_s = 60')) - first;
  const givenMs = bytes * (COST.hashMsPerByte + COST.tlsMsPerByte);
  const fetchedMs = bytes * (COST.hashMsPerByte + COST.inflateMsPerByte) + compressedBytes * COST.tlsMsPerByte;
  const messageMs = both.coordinator / first;
  const readMs = (both.client - second * messageMs - givenMs) / chunks;
  return {
    'alone, ms': alone.ms,
    'coordinator, ms': both.coordinator,
    'client, ms': both.client,
    'server, ms': both.server,
    chunks,
    'messages of the first': first,
    'messages of the second': second,
    messageMs,
    serveMs: (both.server - second * messageMs - givenMs) / chunks,
    readMs,
    originMs: (alone.ms - fetchedMs) / chunks - readMs,
  };
}

const runs: Record<string, number>[] = [];
for (let run = 0; run < Number(values.runs); run += 1) runs.push(await measure());
for (const name of Object.keys(runs[0] as object)) {
  const each = runs.map((run) => run[name] as number);
  const median = each.toSorted((a, b) => a - b)[Math.floor(each.length / 2)] as number;
  console.log(
    `${name.padEnd(24)} ${median.toFixed(2).padStart(9)}   of ${each.map((value) => value.toFixed(2)).join(', ')}`,
  );
}
