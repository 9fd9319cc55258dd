/**
 * The swarm's directory on loopback: announcing, finding, joining, the provider index, memory.
 * `npm run bench -- swarm [announce|find|join|index|rss] [--nodes N] [--chunks N] [--all]`
 */
import { randomBytes } from 'node:crypto';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { type Digest, sha256 } from '../../src/core/digest.ts';
import { createProviderIndex } from '../../src/source/peer/provider-index.ts';
import type { Swarm } from '../../src/source/peer/swarm.ts';
import { generateSwarmKey, parseSwarmKey } from '../../src/source/peer/swarm-key.ts';
import { loopback, stockFind, stockNode } from '../source/peer/stock-node.ts';
import { benchNode, digestsOf, type ForkedNodes, forkNodes, usageOf } from './support/swarm-nodes.ts';
import { claimFolder } from './support/work-folder.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    nodes: { type: 'string' },
    chunks: { type: 'string', default: '100000' },
    all: { type: 'boolean', default: false },
  },
});
const work = await claimFolder();
const folder = work.dir;
const keyText = generateSwarmKey();
const delay = monitorEventLoopDelay({ resolution: 5 });
delay.enable();

function say(name: string, figures: Record<string, number | string>): void {
  const text = Object.entries(figures).map(
    ([key, value]) => `${key} ${typeof value === 'number' ? Number(value.toPrecision(4)) : value}`,
  );
  console.log(`${name.padEnd(10)} ${text.join(', ')}`);
}

function percentile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}

/** Waits until `node` is connected to `count` others, and they to all of each other. */
async function settle(node: Swarm, others: ForkedNodes, count: number): Promise<void> {
  for (;;) {
    const peers = await others.ask({ do: 'peers' });
    if (node.peers().length >= count && peers.every((one) => one >= count)) break;
    await sleep(100);
  }
  // Records are placed anew for a changed swarm, and the collector has work left.
  await sleep(8_000);
}

async function swarmOf(count: number): Promise<{ node: Swarm; others: ForkedNodes }> {
  const node = await benchNode({ folder, name: 'first', keyText });
  const others = await forkNodes({ count: count - 1, keyText, folder, bootstrapPort: node.status().port });
  await settle(node, others, count - 1);
  return { node, others };
}

async function firstFound(node: Swarm, digest: Digest): Promise<{ ms: number; found: boolean }> {
  const started = performance.now();
  const search = new AbortController();
  for await (const _ of node.find(digest, { signal: search.signal })) {
    return { ms: performance.now() - started, found: true };
  }
  return { ms: performance.now() - started, found: false };
}

async function announce(): Promise<void> {
  const nodes = Number(values.nodes ?? 16);
  const chunks = Number(values.chunks);
  const { node, others } = await swarmOf(nodes);
  const digests = digestsOf('announced', chunks);
  await sleep(500);
  const [before, othersBefore] = [usageOf(delay), await others.ask({ do: 'usage' })];
  const started = performance.now();
  node.announce(digests);
  await node.announced();
  const seconds = (performance.now() - started) / 1_000;
  const [after, othersAfter] = [usageOf(delay), await others.ask({ do: 'usage' })];
  const records = (await others.ask({ do: 'records' })).reduce((sum, one) => sum + one, node.status().records);
  const spent = (now: readonly number[], then: readonly number[]): number => (now[0] as number) - (then[0] as number);
  say('announce', {
    nodes,
    chunks,
    seconds,
    'CPU-s announcer': spent(after, before),
    'CPU-s all receivers': spent(othersAfter, othersBefore),
    'longest block ms announcer': after[1] as number,
    receivers: othersAfter[1] as number,
    records,
  });
  await checkFound(digests, node);
  await others.stop();
  await node.stop();
}

/** Every record is found by a node that just joined, and by one that runs nothing but the library's DHT. */
async function checkFound(digests: readonly Digest[], holder: Swarm): Promise<void> {
  const { port } = holder.status();
  const some = values.all ? digests : digests.filter((_, index) => index % Math.ceil(digests.length / 5_000) === 0);
  const node = await benchNode({ folder, name: 'looks', keyText, bootstrapPort: port });
  await node.joined;
  let ours = 0;
  for (const digest of some) if ((await firstFound(node, digest)).found) ours += 1;
  const stock = await stockNode(parseSwarmKey(keyText, 'bench'));
  await stock.dial(loopback(port));
  await sleep(5_000);
  const few = some.filter((_, index) => index % Math.ceil(some.length / 100) === 0);
  let found = 0;
  for (const digest of few) if ((await stockFind(stock, digest)).includes(holder.self.id)) found += 1;
  say('found', { 'by ours': `${ours} of ${some.length}`, 'by stock findProviders': `${found} of ${few.length}` });
  await stock.stop();
  await node.stop();
}

async function find(): Promise<void> {
  const nodes = Number(values.nodes ?? 32);
  const count = 2_000;
  const { node, others } = await swarmOf(nodes);
  await others.ask({ do: 'announce', node: 3, name: 'known', count });
  const known: number[] = [];
  const unknown: number[] = [];
  let missed = 0;
  for (let index = 0; index < count; index += 1) {
    const { ms, found } = await firstFound(node, sha256(`known ${index}`));
    known.push(ms);
    if (!found) missed += 1;
    unknown.push((await firstFound(node, sha256(`unknown ${index}`))).ms);
  }
  for (const [name, times] of [
    ['known', known],
    ['unknown', unknown],
  ] as const) {
    const sorted = times.toSorted((a, b) => a - b);
    say(`find ${name}`, { nodes, 'p50 ms': percentile(sorted, 0.5), 'p99 ms': percentile(sorted, 0.99) });
  }
  if (missed > 0) throw new Error(`${missed} of ${count} known chunks were not found`);
  await node.stop();
  await others.stop();
}

async function joining(): Promise<void> {
  const nodes = Number(values.nodes ?? 32);
  const { node: first, others } = await swarmOf(nodes);
  await others.ask({ do: 'announce', node: 1, name: 'known', count: 100 });
  const cpu = process.cpuUsage();
  const started = performance.now();
  const node = await benchNode({ folder, name: 'joins', keyText, bootstrapPort: first.status().port });
  const since = (): number => (performance.now() - started) / 1_000;
  const listening = since();
  while (node.status().peers.length < nodes) await sleep(5);
  const known = since();
  let missed = 0;
  for (let index = 0; index < 100; index += 1)
    if (!(await firstFound(node, sha256(`known ${index}`))).found) missed += 1;
  const found = since();
  await node.joined;
  while (node.peers().length < nodes) await sleep(5);
  const connected = since();
  const { user, system } = process.cpuUsage(cpu);
  say('join', {
    nodes,
    's to listen': listening,
    'to know all': known,
    'to find 100 chunks': found,
    missed,
    'to be connected to all': connected,
    'CPU-s here': (user + system) / 1e6,
  });
  await node.stop();
  await first.stop();
  await others.stop();
}

function indexing(): void {
  const records = 1_000_000;
  const index = createProviderIndex({ records, recordsPerPeer: records });
  global.gc?.();
  const before = process.memoryUsage();
  const kept: Uint8Array[] = [];
  let addMs = 0;
  for (let at = 0; at < records; at += 2_000) {
    const keys = randomBytes(32 * 2_000);
    const started = performance.now();
    index.add(`peer ${(at / 2_000) % 50}`, keys, 0);
    addMs += performance.now() - started;
    if (kept.length < 20_000) for (let key = 0; key < 200; key += 1) kept.push(keys.subarray(32 * key, 32 * key + 32));
  }
  const hit = performance.now();
  for (const key of kept) if (index.lookup(key, 0).length !== 1) throw new Error('a record is missing');
  const lookupMs = (performance.now() - hit) / kept.length;
  global.gc?.();
  const after = process.memoryUsage();
  const grown = after.heapUsed + after.arrayBuffers - before.heapUsed - before.arrayBuffers - kept.length * 32;
  const sweepStarted = performance.now();
  index.sweep(0);
  say('index', {
    records: index.records,
    'bytes per record': index.bytes / records,
    'grown per record': grown / records,
    'lookup ms': lookupMs,
    'µs per added key': (1_000 * addMs) / records,
    'ms per sweep': performance.now() - sweepStarted,
  });
}

async function memory(): Promise<void> {
  const own = 200_000;
  const measured = await forkNodes({ count: 1, keyText, folder, own, name: 'measured' });
  const bootstrapPort = measured.ports[0] as number;
  const half = { own: own / 2, keyText, bootstrapPort };
  const [a, b] = [await benchNode({ folder, name: 'a', ...half }), await benchNode({ folder, name: 'b', ...half })];
  const records = async (): Promise<number> => (await measured.ask({ do: 'records' }))[0] ?? 0;
  while ((await records()) < 2 * own) await sleep(500);
  await sleep(5_000);
  const [, blockedMs, rss] = (await measured.ask({ do: 'usage' })) as [number, number, number];
  say('rss', { own, foreign: (await records()) - own, 'RSS MiB': rss, 'longest block ms': blockedMs });
  await Promise.all([a.stop(), b.stop(), measured.stop()]);
}

const BENCHES: Record<string, () => void | Promise<void>> = {
  announce,
  find,
  join: joining,
  index: indexing,
  rss: memory,
};
for (const [name, bench] of Object.entries(BENCHES)) {
  if (positionals.length === 0 || positionals.includes(name)) await bench();
}
await work.close();
process.exit(0);
