/**
 * What the work of a daemon costs that has just begun (FRESH in sim/cost-model.ts), on two real hosts of the lab:
 * `npm run bench -- fresh-daemon [--runs N]`. One host alone starts Python: chunks from the registry. Then one of two
 * does, while the other only answers claims and searches: messages. Then that other one does: chunks given and taken.
 * How many messages those are the simulator says. Wants a quiet machine; medians of some runs.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { COST } from '../../sim/cost-model.ts';
import { type HostFacts, type LabHost, type LabHosts, withHosts } from '../lab/hosts.ts';
import { connected, swarmSection } from '../lab/swarm.ts';
import { processUsage } from './support/process-usage.ts';
import { type Recorded, recordStart, simulateStarts } from './support/recorded-start.ts';
import { prepareStart } from './support/starts.ts';

const { values } = parseArgs({ options: { runs: { type: 'string', default: '3' } } });
const RATES = { rate: '1000', registryRate: '100' };
/** Announcements follow within two seconds. */
const REST_MS = 3_000;
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

/** What one host's start read, and the processor ms of each host's daemon meanwhile and until they have come to rest. */
async function startOn(at: number, hosts: readonly LabHost[], { registry }: LabHosts): Promise<Start> {
  const host = hosts[at] as LabHost;
  const used = (): number[] => hosts.map(({ shoal }) => 1_000 * processUsage(shoal.daemon.pid).cpuSeconds);
  const before = used();
  const recorded = await recordStart(host, async () => void (await host.run(`${registry}/${image}`, script)));
  // Asking whether they rest would be work for them.
  await sleep(REST_MS);
  const spentMs = used().map((ms, each) => ms - (before[each] as number));
  const given = Object.values((await host.status()).sources);
  const sum = (key: 'chunks' | 'bytes'): number => given.reduce((all, source) => all + source[key], 0);
  return { recorded, spentMs, chunks: sum('chunks'), bytes: sum('bytes') };
}

interface Start {
  readonly recorded: Recorded;
  readonly spentMs: readonly number[];
  /** Chunks that came, also before the first read, and their bytes. */
  readonly chunks: number;
  readonly bytes: number;
}

/** Messages of two nodes, one of which starts; and of both, one after the other. Requests for chunks are none. */
async function messages(recorded: Recorded, more: string): Promise<number> {
  const counted = await simulateStarts(recorded, { hosts: 2, ...RATES, more });
  return Object.entries(counted.messages).reduce((sum, [kind, count]) => (kind === 'request' ? sum : sum + count), 0);
}

async function measure(): Promise<Record<string, number>> {
  const alone = await lab(1, (hosts, all) => startOn(0, hosts, all));
  const [first, second] = await lab(2, async (hosts, all) => [
    await startOn(0, hosts, all),
    await startOn(1, hosts, all),
  ]);
  const [aloneMs] = alone.spentMs as [number];
  const [, coordinatorMs] = first.spentMs as [number, number];
  const [serverMs, clientMs] = second.spentMs as [number, number];
  const { chunks, bytes } = second;
  const firstMessages = await messages(first.recorded, 'nodes = 1');
  const later = 'nodes = 1\n[arrival.later]\nimage = "app"\nat_s = 60';
  const secondMessages = (await messages(second.recorded, later)) - (await messages(second.recorded, 'nodes = 1'));
  const givenMs = bytes * (COST.hashMsPerByte + COST.tlsMsPerByte);
  const fetchedMs =
    alone.bytes * (COST.hashMsPerByte + COST.inflateMsPerByte) + alone.recorded.compressedBytes * COST.tlsMsPerByte;
  const messageMs = coordinatorMs / firstMessages;
  const readMs = (clientMs - secondMessages * messageMs - givenMs) / chunks;
  return {
    'alone, ms': aloneMs,
    'chunks alone': alone.chunks,
    'coordinator, ms': coordinatorMs,
    'messages of the first': firstMessages,
    'server, ms': serverMs,
    'client, ms': clientMs,
    'chunks of the second': chunks,
    'messages of the second': secondMessages,
    messageMs,
    serveMs: (serverMs - secondMessages * messageMs - givenMs) / chunks,
    readMs,
    'from the registry, ms': (aloneMs - fetchedMs) / alone.chunks,
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
