/**
 * What neighbours save and cost, on hosts of their own: registry egress ÷ bytes the containers read, for hosts that
 * start one cold image together and for hosts that start it one after another, and the time until all have printed ÷
 * the time of one host alone behind the same slow registry. `npm run bench -- swarm-hosts [--image python|model]
 * [--hosts N] [--registry RATE] [--rate RATE]`
 */
import { parseArgs } from 'node:util';
import { type HostsInit, type LabHost, type LabHosts, withHosts } from '../lab/hosts.ts';
import { connected, type SwarmBill, settled, spent, swarmSection } from '../lab/swarm.ts';
import { processUsage } from './support/process-usage.ts';
import { prepareStart } from './support/starts.ts';

const { values } = parseArgs({
  options: {
    image: { type: 'string', default: 'python' },
    hosts: { type: 'string', default: '8' },
    registry: { type: 'string', default: '20mbit' },
    rate: { type: 'string', default: '1gbit' },
  },
});
const COUNT = Number(values.hosts);
const MIB = 1024 * 1024;
const prepared = await prepareStart(values.image);

interface Outcome {
  readonly bill: SwarmBill;
  readonly registrySent: number;
  /** From the first pull to the last output. */
  readonly ms: number;
  /** What claims came to on all hosts together, in chunks, and what neighbours answered. */
  readonly claims: Readonly<Record<string, number>>;
  readonly given: Readonly<Record<string, number>>;
  /** CPU seconds of the daemons meanwhile, all hosts together. */
  readonly cpuSeconds: number;
}

/** User and system time of the daemons so far, s. */
function daemonSeconds(hosts: readonly LabHost[]): number {
  return hosts.reduce((sum, { shoal }) => sum + processUsage(shoal.daemon.pid).cpuSeconds, 0);
}

function add(sum: Record<string, number>, more: Readonly<Record<string, number>>): void {
  for (const [name, count] of Object.entries(more)) sum[name] = (sum[name] ?? 0) + count;
}

function lab<T>(count: number, use: (lab: LabHosts) => Promise<T>): Promise<T> {
  const init: HostsInit = {
    count,
    storage: prepared.storage,
    rate: values.rate,
    registryRate: values.registry,
    config: (host) => swarmSection(host),
  };
  return withHosts(init, async (hosts) => {
    await connected(hosts, hosts.hosts, count - 1);
    return await use(hosts);
  });
}

async function start(host: LabHost, image: string): Promise<void> {
  const { status, stderr } = await host.run(image, prepared.script);
  if (status !== 0) throw new Error(`the container of ${host.name} failed: ${stderr}`);
}

async function measure(lab: LabHosts, work: (image: string) => Promise<unknown>): Promise<Outcome> {
  const sentBefore = await lab.registrySent();
  const cpuBefore = daemonSeconds(lab.hosts);
  let ms = 0;
  const bill = await spent(lab.hosts, async () => {
    const begun = performance.now();
    await work(`${lab.registry}/${prepared.image}`);
    ms = performance.now() - begun;
  });
  const cpuSeconds = daemonSeconds(lab.hosts) - cpuBefore;
  const claims: Record<string, number> = {};
  const given: Record<string, number> = {};
  for (const { swarm } of await Promise.all(lab.hosts.map((host) => host.status()))) {
    add(claims, { ...swarm?.claims });
    add(given, { ...swarm?.given });
  }
  return { bill, registrySent: (await lab.registrySent()) - sentBefore, ms, claims, given, cpuSeconds };
}

function print(name: string, { bill, registrySent, ms, claims, given, cpuSeconds }: Outcome): void {
  const { bytes, fetchedBytes, distinctBytes } = bill;
  const mib = (value = 0): string => `${(value / MIB).toFixed(1)} MiB`;
  console.log(`${name}: ${(ms / 1000).toFixed(1)} s`);
  console.log(`  different bytes read ${mib(distinctBytes)}, from neighbours ${mib(bytes.neighbour)}`);
  console.log(
    `  from the registry ${mib(bytes.origin)}: ${((bytes.origin ?? 0) / distinctBytes).toFixed(4)} of them ` +
      `(${mib(fetchedBytes)} compressed; its interface sent ${mib(registrySent)}, with manifests, indexes and headers)`,
  );
  console.log(`  claims ${JSON.stringify(claims)}, answers to neighbours ${JSON.stringify(given)}`);
  console.log(`  the daemons took ${cpuSeconds.toFixed(1)} CPU-s`);
}

const alone = await lab(1, (one) => measure(one, (image) => start(one.hosts[0] as LabHost, image)));
print('one host alone', alone);

const crowd = await lab(COUNT, (many) =>
  measure(many, (image) => Promise.all(many.hosts.map((host) => start(host, image)))),
);
print(`${COUNT} hosts together`, crowd);
console.log(`  time until all have printed ÷ alone: ${(crowd.ms / alone.ms).toFixed(2)}`);

const inTurn = await lab(COUNT, (many) =>
  measure(many, async (image) => {
    for (const host of many.hosts) {
      await start(host, image);
      await settled([host]);
    }
  }),
);
print(`${COUNT} hosts one after another (the time has pauses between them)`, inTurn);
