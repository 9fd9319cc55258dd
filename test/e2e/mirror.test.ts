import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { MirrorsReport } from '../../src/control/mirrors-report.ts';
import { type Daemon, run, startDaemon, waitFor } from '../lab/process.ts';
import { startRegistry } from '../lab/registry.ts';
import { startShoal } from '../lab/shoal.ts';
import { labImages, statusOf, whyNot, withDirectory } from './node-lab.ts';

const skip = await whyNot('docker-registry');
const DOUBLE = fileURLToPath(new URL('../fakes/dragonfly.ts', import.meta.url));

/** The Dragonfly double as a process of its own, so that it can be killed. */
async function startDouble(dir: string): Promise<{ daemon: Daemon; proxy: string; health: string }> {
  const logPath = join(dir, 'dragonfly.log');
  const daemon = startDaemon(process.execPath, [DOUBLE], { logPath });
  const line = await new Promise<string>((resolve) => daemon.child.stdout?.once('data', (text) => resolve(`${text}`)));
  return { daemon, ...(JSON.parse(line) as { proxy: string; health: string }) };
}

test('an image is read through its mirror; the mirror is killed in the middle, and nothing fails', {
  skip,
}, async () => {
  const images = await labImages();
  await withDirectory(async (dir) => {
    await using stack = new AsyncDisposableStack();
    const registry = await startRegistry({ workDir: dir, storage: images.storage });
    stack.defer(() => registry.stop());
    const double = await startDouble(dir);
    stack.defer(async () => void (await double.daemon.stop('SIGKILL')));
    const certs = join(dir, 'certs.d');
    const folder = join(certs, `127.0.0.1_${registry.port}_`);
    await mkdir(folder, { recursive: true });
    await writeFile(
      join(folder, 'hosts.toml'),
      `[host."${double.proxy}"]\nping_url = "${double.health}"\n[host."${double.proxy}".header]\nX-Dragonfly-Registry = "http://${registry.host}"\n`,
    );
    await mkdir(join(certs, '_default'));
    await writeFile(join(certs, '_default/hosts.toml'), `[host."${double.proxy}"]\n`);
    const shoal = await startShoal({ dir: join(dir, 'shoal'), config: `[mirrors]\nconfig_path = "${certs}"\n` });
    stack.defer(async () => void (await shoal.stop()));
    const target = join(dir, 'image');
    await mkdir(target);
    const reference = `${registry.host}/${images.estargz}`;
    await shoal.post('/v1/mounts', { reference, directory: target });
    stack.defer(async () => void (await run('umount', [target], { allowFailure: true })));

    const seen = (await (await fetch(`${new URL(double.health).origin}/control/requests`)).json()) as { url: string }[];
    assert.ok(
      seen.some(({ url }) => url.includes('/manifests/')),
      'the manifest came through the mirror',
    );
    await run('sh', ['-c', `cat ${target}/srv/app/* > /dev/null`]);
    const healthy = (await statusOf(shoal)).bytesBySource;
    assert.ok((healthy.mirror ?? 0) > 0, JSON.stringify(healthy));
    assert.equal(healthy.origin, 0);

    const reading = run('sh', ['-c', `find ${target}/usr -type f -print0 | xargs -0 cat | sha256sum`]);
    await waitFor('more from the mirror', async () => {
      const { mirror = 0 } = (await statusOf(shoal)).bytesBySource;
      return mirror > (healthy.mirror ?? 0) + 2 * 1024 * 1024;
    });
    await double.daemon.stop('SIGKILL');
    const whole = (await reading).stdout;
    const again = (await run('sh', ['-c', `find ${target}/usr -type f -print0 | xargs -0 cat | sha256sum`])).stdout;
    assert.equal(again, whole);
    const after = await statusOf(shoal);
    assert.ok((after.bytesBySource.origin ?? 0) > 0, JSON.stringify(after.bytesBySource));
    assert.equal(after.faults.denied, 0);

    const { registries } = await shoal.get<MirrorsReport>('/v1/mirrors');
    const others = registries.at(-1);
    assert.deepEqual([others?.registry, others?.mirrors[0]?.url], ['_default', double.proxy]);
    const own = registries.find(({ registry: name }) => name === registry.host);
    assert.equal(own?.mirrors[0]?.url, double.proxy);
    assert.equal(own?.mirrors[0]?.health, 'resting');
    assert.ok((own?.mirrors[0]?.bytes ?? 0) > 0);
    assert.match(own?.mirrors[0]?.lastError?.message ?? '', /127\.0\.0\.1/);
  });
});
