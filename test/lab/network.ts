import { inNetwork, run } from './process.ts';

/** How fast a host is connected, as tc writes rates (`1gbit`), both ways. */
export interface HostPlug {
  /** Last part of its namespace's name. */
  readonly name: string;
  /** Last byte of its address, 2 to 254. */
  readonly number: number;
  readonly rate: string;
}

/** Hosts on one switch: a network namespace each, nothing of it visible from outside. */
export interface LabNetwork {
  /** Namespace and address of the host with this name. */
  netnsOf(name: string): string;
  addressOf(name: string): string;
  /** Bytes the host sent and received since it was made, as its interface counts them, headers included. */
  trafficOf(name: string): Promise<{ sent: number; received: number }>;
  /** Pulls the host's cable, or plugs it in again. */
  plug(name: string, isPlugged: boolean): Promise<void>;
  close(): Promise<void>;
}

/** Every lab has its own switch in its own namespace, so they may all use the same addresses. */
const SUBNET = '10.77.0';
/** What a `tbf` lets through at once: a millisecond of the fastest rate, and more than the largest segment. */
const BURST = '512kb';
/** What waits in front of it before packets are dropped. */
const LATENCY = '60ms';

/** Makes the namespaces `<lab>-net` (the switch) and `<lab>-<host>`; they must not exist. */
export async function createNetwork(lab: string, plugs: readonly HostPlug[]): Promise<LabNetwork> {
  const hub = `${lab}-net`;
  const netnsOf = (name: string): string => `${lab}-${name}`;
  const addressOf = (name: string): string => `${SUBNET}.${plugs.find((plug) => plug.name === name)?.number}`;
  const portOf = (name: string): string => `p-${name}`;
  await batch(
    'ip',
    undefined,
    [hub, ...plugs.map(({ name }) => netnsOf(name))].map((name) => `netns add ${name}`),
  );
  await batch('ip', hub, [
    'link add br0 type bridge',
    'link set br0 up',
    ...plugs.flatMap(({ name }) => [
      `link add ${portOf(name)} type veth peer name eth0 netns ${netnsOf(name)}`,
      `link set ${portOf(name)} master br0`,
      `link set ${portOf(name)} up`,
    ]),
  ]);
  await batch(
    'tc',
    hub,
    plugs.map(({ name, rate }) => limit(portOf(name), rate)),
  );
  await Promise.all(
    plugs.map(async ({ name, rate }) => {
      const up = [`addr add ${addressOf(name)}/24 dev eth0`, 'link set lo up', 'link set eth0 up'];
      await batch('ip', netnsOf(name), up);
      await batch('tc', netnsOf(name), [limit('eth0', rate)]);
    }),
  );
  return {
    netnsOf,
    addressOf,
    async trafficOf(name) {
      const { stdout } = await run('ip', ['-n', netnsOf(name), '-s', '-j', 'link', 'show', 'dev', 'eth0']);
      const [link] = JSON.parse(stdout) as [{ stats64: { tx: { bytes: number }; rx: { bytes: number } } }];
      return { sent: link.stats64.tx.bytes, received: link.stats64.rx.bytes };
    },
    plug: (name, isPlugged) => batch('ip', hub, [`link set ${portOf(name)} ${isPlugged ? 'up' : 'down'}`]),
    close: () => deleteNamespaces(lab),
  };
}

/** Deletes every namespace of a lab by its name, and with them their interfaces. */
export async function deleteNamespaces(lab: string): Promise<void> {
  for (const name of await namespaces()) {
    if (name.startsWith(`${lab}-`)) await run('ip', ['netns', 'delete', name], { allowFailure: true });
  }
}

/** Names of all network namespaces. */
export async function namespaces(): Promise<string[]> {
  const { stdout } = await run('ip', ['netns', 'list']);
  return stdout
    .split('\n')
    .map((line) => line.split(' ')[0] as string)
    .filter((name) => name !== '');
}

function limit(device: string, rate: string): string {
  return `qdisc replace dev ${device} root tbf rate ${rate} burst ${BURST} latency ${LATENCY}`;
}

async function batch(program: 'ip' | 'tc', netns: string | undefined, lines: readonly string[]): Promise<void> {
  const [command, ...args] = inNetwork(netns, [program, '-batch', '-']);
  await run(command, args, { input: `${lines.join('\n')}\n` });
}
