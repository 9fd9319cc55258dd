import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Level } from 'level';
import { silentLogger } from '../../src/log.ts';
import { serveSnapshots } from '../../src/snapshot/grpc.ts';
import { noLazyLayers } from '../../src/snapshot/lazy-layers.ts';
import { openLevelMetaStore } from '../../src/snapshot/metastores.ts';
import { createSnapshotter } from '../../src/snapshot/snapshotter.ts';
import { connectSnapshots, type SnapshotsClient } from '../snapshot/client.ts';
import { claimFolder } from './support/work-folder.ts';

/** Load of L3: List with a filter over 10,000 snapshots, and Prepare at 50/s among them, through the socket. */
const { values } = parseArgs({
  options: {
    snapshots: { type: 'string', default: '10000' },
    rate: { type: 'string', default: '50' },
    seconds: { type: 'string', default: '20' },
  },
});
const snapshots = Number(values.snapshots);
const rate = Number(values.rate);
const seconds = Number(values.seconds);
const LABELS = {
  'containerd.io/gc.root': '2026-01-01T00:00:00Z',
  'containerd.io/snapshot/cri.layer-digest': `sha256:${'a'.repeat(64)}`,
};

const folder = await claimFolder();
const root = folder.dir;
try {
  const db = new Level<string, string>(join(root, 'meta'));
  const store = await openLevelMetaStore({ db });
  await store.update((transaction) => {
    for (let at = 0; at < snapshots; at += 1) {
      const labels = new Map([...Object.entries(LABELS), ['containerd.io/snapshot.ref', `sha256:${at}`]]);
      transaction.createSnapshot('active', `k8s.io/${at}/extract`, '', labels);
      transaction.commitActive(
        `k8s.io/${at}/extract`,
        `k8s.io/${at}/sha256:${at}`,
        { sizeBytes: 1, inodes: 1 },
        { labels },
      );
    }
  });
  const log = silentLogger;
  const snapshotter = await createSnapshotter({ store, lazyLayers: noLazyLayers, log }, { root });
  const server = await serveSnapshots({ snapshotter, log }, { socket: join(root, 's.sock') });
  const client = connectSnapshots(join(root, 's.sock'));
  await client.cleanup();
  await lists(client);
  await prepares(client);
  client.close();
  await server.close();
  await store.close();
  await db.close();
  const reopened = new Level<string, string>(join(root, 'meta'));
  const began = performance.now();
  await openLevelMetaStore({ db: reopened });
  print('open a store of that size', [performance.now() - began]);
  await reopened.close();
} finally {
  await folder.close();
}

async function lists(client: SnapshotsClient): Promise<void> {
  const filters = {
    'none match (name)': ['name==nothing'],
    'one matches (label, as containerd asks)': ['labels."containerd.io/snapshot.ref"=="sha256:77",parent==""'],
    'all match (kind)': ['kind==committed'],
    'regex, all match': ['name~=|^k8s[.]io/[0-9]+/sha256|'],
  };
  for (const [title, filter] of Object.entries(filters)) {
    const times: number[] = [];
    let found = 0;
    for (let round = 0; round < 20; round += 1) {
      const began = performance.now();
      found = 0;
      for await (const _info of client.list(filter)) found += 1;
      times.push(performance.now() - began);
    }
    print(`List of ${snapshots}, ${title}: ${found} found`, times);
  }
}

async function prepares(client: SnapshotsClient): Promise<void> {
  const count = rate * seconds;
  const times: number[] = [];
  const began = performance.now();
  const calls: Promise<void>[] = [];
  for (let at = 0; at < count; at += 1) {
    await sleep(Math.max(0, began + (at * 1000) / rate - performance.now()));
    const start = performance.now();
    calls.push(client.prepare(`container-${at}`, '', LABELS).then(() => void times.push(performance.now() - start)));
  }
  await Promise.all(calls);
  print(`Prepare at ${rate}/s for ${seconds} s`, times);
}

function print(title: string, times: readonly number[]): void {
  const sorted = [...times].sort((a, b) => a - b);
  const at = (share: number): string =>
    (sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0).toFixed(1);
  console.log(`${title.padEnd(72)} p50 ${at(0.5)} ms  p99 ${at(0.99)} ms  max ${at(1)} ms`);
}
