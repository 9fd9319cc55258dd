import { existsSync, writeFileSync } from 'node:fs';
import { open, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { BLOCK_BYTES, blocksPresent } from '../../src/core/block-map.ts';
import { decodeChunkTable } from '../../src/core/chunk-table-codec.ts';
import { parseDigest } from '../../src/core/digest.ts';
import type { SwarmStatus } from '../../src/source/peer/swarm.ts';
import { generateSwarmKey } from '../../src/source/peer/swarm-key.ts';
import { loadMapFile } from '../../src/store/map-file.ts';
import { decodeSealed } from '../../src/store/sealed-file.ts';
import type { HostFacts, LabHost, LabHosts } from './hosts.ts';
import { waitFor } from './process.ts';

/** Swarm port of every host. */
const PORT = 7401;

/** Configuration of a host in the lab's swarm: a key that all have, the first two hosts as the way in. */
export function swarmSection(host: HostFacts, init: { key?: string; more?: string } = {}): string {
  const key = join(host.labDir, `${init.key ?? 'swarm'}.key`);
  if (!existsSync(key)) writeFileSync(key, generateSwarmKey(), { mode: 0o600 });
  const bootstrap = host.addresses.slice(0, 2).map((address) => `"${address}:${PORT}"`);
  return [
    '[swarm]',
    `key_file = "${key}"`,
    `listen = "${host.address}:${PORT}"`,
    `bootstrap = [${bootstrap.join(', ')}]`,
    init.more ?? '',
    '',
  ].join('\n');
}

/** Where the chunks of these hosts came from since their daemons started, and what they have together. */
export interface SwarmBill {
  /** Uncompressed bytes from each source, all hosts together. */
  readonly bytes: Readonly<Record<string, number>>;
  /** Compressed layer bytes read from the registry. */
  readonly fetchedBytes: number;
  /** Uncompressed bytes of the different chunks that any of them has: what has to come from outside once. */
  readonly distinctBytes: number;
}

/** Adds up what the hosts report; their states on disk say what they have. */
export async function billOf(hosts: readonly LabHost[]): Promise<SwarmBill> {
  const bytes: Record<string, number> = {};
  let fetchedBytes = 0;
  for (const status of await Promise.all(hosts.map((host) => host.status()))) {
    fetchedBytes += status.fetchedBytes;
    for (const [name, given] of Object.entries(status.bytesBySource)) bytes[name] = (bytes[name] ?? 0) + given;
  }
  const lengths = new Map<string, number>();
  for (const { shoal } of hosts) await addChunksOf(shoal.root, lengths);
  return { bytes, fetchedBytes, distinctBytes: [...lengths.values()].reduce((sum, length) => sum + length, 0) };
}

/** What `work` cost: the difference of two bills of these hosts, once all have come to rest. Daemons must not restart. */
export async function spent(hosts: readonly LabHost[], work: () => Promise<unknown>): Promise<SwarmBill> {
  const before = await billOf(hosts);
  await work();
  await settled(hosts);
  const after = await billOf(hosts);
  const bytes = Object.entries(after.bytes).map(([name, given]) => [name, given - (before.bytes[name] ?? 0)]);
  return {
    bytes: Object.fromEntries(bytes) as Record<string, number>,
    fetchedBytes: after.fetchedBytes - before.fetchedBytes,
    distinctBytes: after.distinctBytes - before.distinctBytes,
  };
}

/** Waits until nothing is fetched any more anywhere and what came is on disk and announced. */
export async function settled(hosts: readonly LabHost[]): Promise<void> {
  let last = '';
  let same = 0;
  await waitFor(
    'rest of the fetching',
    async () => {
      const now = JSON.stringify(await Promise.all(hosts.map(async (host) => (await host.status()).bytesBySource)));
      same = now === last ? same + 1 : 0;
      last = now;
      await new Promise((resolve) => setTimeout(resolve, 250));
      // presence is flushed after one second, announcements follow within two
      return same >= 14;
    },
    300_000,
  );
}

/** Waits until every one of these hosts is connected with `peers` others. */
export async function connected(lab: LabHosts, hosts: readonly LabHost[], peers: number): Promise<void> {
  for (const { name, shoal } of hosts) {
    await waitFor(
      `${peers} peers of ${name} in ${lab.name}`,
      async () => (await peersOf(shoal)).length === peers,
      60_000,
    );
  }
}

/** Ids of the neighbours a daemon is connected with. */
export async function peersOf(shoal: LabHost['shoal']): Promise<readonly { readonly id: string }[]> {
  return (await shoal.get<SwarmStatus>('/v1/swarm')).peers.filter(({ state }) => state === 'connected');
}

async function addChunksOf(root: string, lengths: Map<string, number>): Promise<void> {
  for (const name of await readdir(join(root, 'blobs'))) {
    const dir = join(root, 'blobs', name);
    const table = decodeChunkTable(decodeSealed('table', await readFile(join(dir, 'table'))));
    await using map = await open(join(dir, 'map'));
    const loaded = await loadMapFile(map.fd, parseDigest(`sha256:${name}`), table.deviceSize / BLOCK_BYTES);
    for (let row = 0; row < table.count && loaded !== undefined; row += 1) {
      const { first, end } = table.blocksOf(row);
      if (blocksPresent(loaded.bitmap, first, end)) lengths.set(table.row(row).digest, table.row(row).length);
    }
  }
}
