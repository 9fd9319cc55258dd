import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { StatusReport } from '../../src/control/status.ts';
import { type LabContainerd, startContainerd } from './containerd.ts';
import { claimLab, remainsOf, sweepLab } from './lab-name.ts';
import { createNetwork, type LabNetwork } from './network.ts';
import { addToError, type CommandResult, waitFor } from './process.ts';
import { type LabRegistry, startRegistry } from './registry.ts';
import { runScript } from './run-script.ts';
import { type LabShoal, startShoal } from './shoal.ts';

/** A node of the lab: its own network namespace, containerd and shoal. */
export interface LabHost {
  /** `h0`, `h1`, … */
  readonly name: string;
  readonly index: number;
  readonly address: string;
  readonly netns: string;
  readonly dir: string;
  /** The daemon that runs now. */
  readonly shoal: LabShoal;
  readonly containerd: LabContainerd;
  status(): Promise<StatusReport>;
  /** Pulls the image through the CRI: its manifest and the indexes of its layers. */
  pull(image: string): Promise<void>;
  /** Pulls the image unless that was done, and runs a script in a container of it. */
  run(image: string, script: string): Promise<CommandResult>;
  /** Ends the daemon in this way and starts it anew on its state. */
  restart(signal?: NodeJS.Signals): Promise<void>;
  /** Bytes its interface sent and received. */
  traffic(): Promise<{ sent: number; received: number }>;
}

/** Several hosts on one switch, and a registry behind a link of its own. */
export interface LabHosts {
  readonly name: string;
  readonly dir: string;
  readonly hosts: readonly LabHost[];
  /** `address:port`, reached from the hosts only. */
  readonly registry: string;
  /** Its process, which shares this machine's processors with the hosts. */
  readonly registryPid: number;
  /** Bytes the registry's host sent, headers included. */
  registrySent(): Promise<number>;
  /** Pulls the registry's cable, or plugs it in. */
  plugRegistry(isPlugged: boolean): Promise<void>;
  readonly network: LabNetwork;
}

/** What `withHosts` builds. */
export interface HostsInit {
  readonly count: number;
  /** Storage directory of the registry. */
  readonly storage: string;
  /** Link of each host, both ways. */
  readonly rate?: string;
  /** Link of the registry's host. */
  readonly registryRate?: string;
  /** More configuration (TOML) of a host's daemon. */
  config?(host: HostFacts): string;
  /** What starts a host's daemon, instead of the checkout's sources. */
  program?(host: HostFacts): readonly string[] | undefined;
}

/** What is known of a host before it starts. */
export interface HostFacts {
  readonly index: number;
  readonly address: string;
  /** Directory of the lab: the same for all its hosts. */
  readonly labDir: string;
  /** Directory of the host. */
  readonly dir: string;
  /** Addresses of all hosts. */
  readonly addresses: readonly string[];
}

/** Many daemons start at the same time; compiled once, they share the work. */
const READY_MS = 180_000;
const COMPILE_CACHE = fileURLToPath(new URL('../../.cache/compiled', import.meta.url));
const REGISTRY = 'reg';
const REGISTRY_PORT = 5000;
/** A data centre's cheapest link, and a registry that is ten times slower. */
const RATE = '1gbit';
const REGISTRY_RATE = '100mbit';

/** Builds the hosts, runs `use` and takes everything away again, whatever happens; it is an error if something stays. */
export async function withHosts<T>(init: HostsInit, use: (lab: LabHosts) => Promise<T>): Promise<T> {
  const { name, dir } = await claimLab();
  try {
    const result = await build(name, dir, init, use);
    const left = await remainsOf(name);
    if (left.length > 0) throw new Error(`left behind: ${left.join('; ')}`);
    return result;
  } finally {
    await sweepLab(name);
  }
}

async function build<T>(name: string, dir: string, init: HostsInit, use: (lab: LabHosts) => Promise<T>): Promise<T> {
  await using stack = new AsyncDisposableStack();
  const numbers = Array.from({ length: init.count }, (_, index) => index);
  const { rate = RATE, registryRate = REGISTRY_RATE } = init;
  const network = await createNetwork(name, [
    { name: REGISTRY, number: 2, rate: registryRate },
    ...numbers.map((index) => ({ name: `h${index}`, number: 10 + index, rate })),
  ]);
  stack.defer(() => network.close());
  const registry = await startRegistry({
    workDir: dir,
    storage: init.storage,
    address: network.addressOf(REGISTRY),
    port: REGISTRY_PORT,
    netns: network.netnsOf(REGISTRY),
    unreachable: true,
  });
  stack.defer(() => registry.stop());
  const parts = { name, dir, network, registry };
  const started = await Promise.allSettled(numbers.map((index) => startHost(parts, init, index)));
  for (const each of started) if (each.status === 'fulfilled') stack.defer(() => each.value.stop());
  const hosts = started.map((each) => {
    if (each.status === 'rejected') throw each.reason;
    return each.value;
  });
  try {
    return await use({
      name,
      dir,
      hosts,
      network,
      registry: registry.host,
      registryPid: registry.daemon.pid,
      registrySent: async () => (await network.trafficOf(REGISTRY)).sent,
      plugRegistry: (isPlugged) => network.plug(REGISTRY, isPlugged),
    });
  } catch (error) {
    addToError(error, await logTails(hosts));
    throw error;
  }
}

interface HostParts {
  readonly name: string;
  readonly dir: string;
  readonly network: LabNetwork;
  readonly registry: LabRegistry;
}

async function startHost(
  parts: HostParts,
  init: HostsInit,
  index: number,
): Promise<LabHost & { stop(): Promise<void> }> {
  const { network, registry } = parts;
  const name = `h${index}`;
  const dir = join(parts.dir, name);
  const netns = network.netnsOf(name);
  const addresses = Array.from({ length: init.count }, (_, other) => network.addressOf(`h${other}`));
  const facts: HostFacts = { index, address: network.addressOf(name), labDir: parts.dir, dir, addresses };
  const program = init.program?.(facts);
  const launch = (): Promise<LabShoal> =>
    startShoal({
      dir: join(dir, 'shoal'),
      config: `${registrySection(registry)}${init.config?.(facts) ?? ''}`,
      netns,
      readyMs: READY_MS,
      env: { NODE_COMPILE_CACHE: COMPILE_CACHE },
      ...(program === undefined ? {} : { program }),
    });
  const home = join(dir, 'containerd');
  await mkdir(home, { recursive: true });
  let shoal = await launch();
  const proxy = { name: 'shoal', socket: shoal.socket };
  const containerd = await startContainerd({ dir: home, proxy, registryHost: registry.host, netns }).catch(
    async (error) => {
      await shoal.stop();
      throw error;
    },
  );
  const pulled = new Set<string>();
  const pull = async (image: string): Promise<void> => {
    if (!pulled.has(image)) await containerd.criPull(image);
    pulled.add(image);
  };
  let runs = 0;
  return {
    name,
    index,
    dir,
    netns,
    address: facts.address,
    containerd,
    get shoal() {
      return shoal;
    },
    status: () => shoal.get<StatusReport>('/v1/status'),
    pull,
    async run(image, script) {
      await pull(image);
      runs += 1;
      return await runScript({ containerd }, { image, id: `${parts.name}-${name}-${runs}`, script });
    },
    async restart(signal = 'SIGTERM') {
      await shoal.stop(signal);
      shoal = await launch();
      // containerd waits a while before it dials again
      await waitFor('containerd and shoal', async () => {
        const { status } = await containerd.ctr(['snapshots', '--snapshotter', 'shoal', 'ls'], { allowFailure: true });
        return status === 0;
      });
    },
    traffic: () => network.trafficOf(name),
    async stop() {
      await containerd.stop();
      const code = await shoal.stop();
      if (code !== 0 && shoal.daemon.child.signalCode !== 'SIGKILL')
        throw new Error(`shoal of ${name} ended with ${code}`);
    },
  };
}

function registrySection({ host }: LabRegistry): string {
  return `[registry."${host}"]\nplain_http = true\nallow_private = true\n`;
}

async function logTails(hosts: readonly LabHost[]): Promise<string> {
  const tails = hosts.map(async ({ name, shoal }) => {
    const lines = (await readFile(shoal.daemon.logPath, 'utf8').catch(() => '')).trimEnd().split('\n');
    return `\n--- end of the log of ${name}\n${lines.slice(-8).join('\n')}`;
  });
  return (await Promise.all(tails)).join('');
}
