import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '../../../src/clock.ts';
import { createLogger, silentLogger } from '../../../src/log.ts';
import { createHostsDirectory, hostFolders } from '../../../src/source/mirror/hosts-directory.ts';
import { FakeDragonfly } from '../../fakes/dragonfly.ts';
import { type MirrorLab, startMirrorLab } from './mirror-lab.ts';

async function withTree(files: Readonly<Record<string, string>>, use: (root: string) => Promise<void>): Promise<void> {
  const root = await mkdtemp(join(tmpdir(), 'shoal-certs-'));
  try {
    for (const [name, text] of Object.entries(files)) {
      await mkdir(join(root, name, '..'), { recursive: true });
      await writeFile(join(root, name), text);
    }
    await use(root);
  } finally {
    await rm(root, { recursive: true });
  }
}

test('folders are looked for in the order containerd has', () => {
  assert.deepEqual(hostFolders('/c', 'r.example:5000'), ['/c/r.example_5000_', '/c/r.example:5000', '/c/_default']);
  assert.deepEqual(hostFolders('/c', 'docker.io'), ['/c/docker.io', '/c/_default']);
  assert.deepEqual(hostFolders('/c', '[::1]:5000'), ['/c/[::1]_5000_', '/c/[::1]:5000', '/c/_default']);
});

test('the first folder that exists counts, also one without a hosts.toml', async () => {
  const files = {
    'a_5000_/hosts.toml': '[host."first"]',
    'a:5000/hosts.toml': '[host."second"]',
    'b:5000/hosts.toml': '[host."third"]',
    'c.example/ca.crt': 'x',
    '_default/hosts.toml': '[host."default"]',
  };
  await withTree(files, async (root) => {
    const directory = createHostsDirectory({ clock: systemClock, log: silentLogger }, { path: root });
    const firstOf = async (registry: string) => (await directory.of(registry)).hosts[0]?.origin;
    assert.equal(await firstOf('a:5000'), 'https://first');
    assert.equal(await firstOf('b:5000'), 'https://third');
    assert.equal(await firstOf('c.example'), undefined);
    assert.equal(await firstOf('docker.io'), 'https://default');
  });
});

test('a file that becomes invalid keeps the last good one, and says why once', async () => {
  await withTree({ 'r/hosts.toml': '[host."good"]' }, async (root) => {
    const lines: string[] = [];
    const log = createLogger({ level: 'info', write: (line) => void lines.push(line) });
    const directory = createHostsDirectory({ clock: systemClock, log }, { path: root });
    assert.equal((await directory.of('r')).hosts.length, 1);
    await writeFile(join(root, 'r/hosts.toml'), '[host."good"]\nskip_verify = 1\n[host."other"]\n');
    for (let round = 0; round < 3; round += 1) {
      await sleep(520);
      const { hosts, error } = await directory.of('r');
      assert.deepEqual(
        hosts.map(({ origin }) => origin),
        ['https://good'],
      );
      assert.match(error ?? '', /hosts\.toml line 2: skip_verify must be true or false/);
    }
    assert.equal(lines.filter((line) => line.includes('last good one stays')).length, 1);
    await writeFile(join(root, 'r/hosts.toml'), '[host."other"]\nca = "missing.crt"\n');
    await sleep(520);
    assert.match((await directory.of('r')).error ?? '', /cannot read .*missing\.crt \(ENOENT\)/);
    await writeFile(join(root, 'r/missing.crt'), 'PEM');
    await sleep(520);
    const healed = await directory.of('r');
    assert.equal(healed.error, undefined);
    assert.equal(healed.hosts[0]?.origin, 'https://other');
    assert.equal(healed.certificates.get(join(root, 'r/missing.crt')), 'PEM');
    await writeFile(join(root, 'r/missing.crt'), 'PEM2');
    await sleep(520);
    assert.equal((await directory.of('r')).certificates.get(join(root, 'r/missing.crt')), 'PEM2');
  });
});

test('a change on disk is in effect within a second, and no read fails meanwhile', async () => {
  await using first = await FakeDragonfly.start();
  await using second = await FakeDragonfly.start();
  await using lab = await startMirrorLab();
  const hosts = (double: FakeDragonfly): string =>
    `[host."${double.url}".header]\nX-Dragonfly-Registry = "http://${lab.registry.host}"\n`;
  await lab.hosts(hosts(first));
  const stop = new AbortController();
  let reads = 0;
  const readers = [0, 8, 16].map(async (from) => {
    for (let at = 0; !stop.signal.aborted; at += 1) {
      await lab.read(from + (at % 8));
      reads += 1;
      await sleep(5);
    }
  });
  await sleep(400);
  for (const double of [second, first, second]) {
    await lab.hosts(hosts(double));
    await sleep(1_000);
    const before = double.requests.length;
    const others = (double === first ? second : first).requests.length;
    await sleep(300);
    // Pieces are kept, so ask for something new.
    await ask(lab);
    assert.ok(double.requests.length > before, 'the new mirror is asked');
    assert.equal((double === first ? second : first).requests.length, others, 'the former one is not');
  }
  stop.abort();
  await Promise.all(readers);
  assert.ok(reads > 50);
  assert.equal(lab.origin.requests, 0);
});

/** One request that nothing answers from memory. */
async function ask({ client, registry, blob }: MirrorLab): Promise<void> {
  const where = { registry: registry.host, repository: 'team/app' };
  await client.blobTail(where, blob.digest, 100, { signal: AbortSignal.timeout(5_000) });
}
