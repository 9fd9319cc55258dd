import { createControlClient } from '../control/client.ts';
import { parseDigest } from '../core/digest.ts';
import type { Neighbour } from '../source/peer/directory.ts';
import type { SwarmStatus } from '../source/peer/swarm.ts';
import { generateSwarmKey, writeSwarmKey } from '../source/peer/swarm-key.ts';
import type { Command, Invocation } from './command.ts';
import { EXIT, UsageError } from './exit-code.ts';
import { printable, table } from './output.ts';

/** `shoal swarm`: the key, the peers, and who has a chunk. */
export const swarmCommand: Command = {
  name: 'swarm',
  args: 'key generate | peers | find DIGEST',
  argCount: { min: 1, max: 2 },
  summary: 'make a swarm key, list peers, find who has a chunk',
  description:
    '`key generate` makes the secret that all nodes of a swarm share (`swarm.key_file`): on standard output, or with\n' +
    '--output in a file of mode 0600. `peers` lists the nodes this one knows. `find` asks the swarm who has the chunk\n' +
    'with that digest.',
  options: {
    json: { type: 'boolean', description: 'print JSON (peers, find)' },
    output: { type: 'string', short: 'o', value: 'PATH', description: 'file for a new key' },
  },
  async run(invocation) {
    const [action, argument] = invocation.args;
    if (action === 'key' && argument === 'generate') return makeKey(invocation);
    if (action === 'peers' && argument === undefined) return await showPeers(invocation);
    if (action === 'find' && argument !== undefined) return await find(invocation, argument);
    throw new UsageError(`expected: shoal swarm ${swarmCommand.args}`, 'swarm');
  },
};

function makeKey({ options, io }: Invocation): number {
  if (typeof options.output === 'string') writeSwarmKey(options.output);
  else io.out(generateSwarmKey());
  return EXIT.ok;
}

async function showPeers({ config, options, io, signal }: Invocation): Promise<number> {
  const client = createControlClient({ socket: config().control.socket });
  const status = (await client.call('GET', '/v1/swarm', undefined, { signal })) as SwarmStatus;
  if (options.json === true) io.out(`${JSON.stringify(status, null, 2)}\n`);
  else io.out(renderPeers(status));
  return EXIT.ok;
}

/** The peers as people read them. */
export function renderPeers({ id, port, peers, banned, records, connections }: SwarmStatus): string {
  const head = table([
    ['self', `${id}, port ${port}`],
    ['connections', String(connections)],
    ['records', String(records)],
    ...banned.map((ban) => ['banned', printable(`${ban.id} for ${Math.ceil(ban.leftMs / 1_000)} s: ${ban.reason}`)]),
  ]);
  if (peers.length === 0) return `${head}\nno peers\n`;
  const rows = peers.map((peer) => [
    peer.id,
    printable(`${peer.address}:${peer.port}`),
    peer.dataPort === 0 ? '-' : String(peer.dataPort),
    printable(peer.zone === '' ? '-' : peer.zone),
    peer.state,
  ]);
  return `${head}\n${table([['PEER', 'ADDRESS', 'DATA PORT', 'ZONE', 'STATE'], ...rows], [2])}`;
}

async function find({ config, options, io, signal }: Invocation, text: string): Promise<number> {
  const digest = parseDigest(text);
  const client = createControlClient({ socket: config().control.socket });
  const answer = (await client.call('POST', '/v1/swarm/find', { digest }, { signal })) as { providers: Neighbour[] };
  if (options.json === true) io.out(`${JSON.stringify(answer, null, 2)}\n`);
  else if (answer.providers.length === 0) io.out(`no neighbour has ${digest}\n`);
  else {
    const rows = answer.providers.map(({ id, address, dataPort, zone }) => [
      id,
      printable(`${address}:${dataPort}`),
      printable(zone === '' ? '-' : zone),
    ]);
    io.out(table([['PEER', 'DATA ADDRESS', 'ZONE'], ...rows]));
  }
  return answer.providers.length === 0 ? EXIT.failure : EXIT.ok;
}
