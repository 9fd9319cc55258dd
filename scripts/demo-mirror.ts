/**
 * The cascade's second step, on real input: an image is read through a Dragonfly client (a double of it, see
 * docs/dragonfly.md), which is killed in the middle of a read; the registry serves the rest and nothing fails.
 */
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { StatusReport } from '../src/control/status.ts';
import type { LabImages } from '../test/lab/images.ts';
import { type Daemon, run, startDaemon, waitFor } from '../test/lab/process.ts';
import { startRegistry } from '../test/lab/registry.ts';
import { type LabShoal, SHOAL_MAIN, startShoal } from '../test/lab/shoal.ts';

const DOUBLE = fileURLToPath(new URL('../test/fakes/dragonfly.ts', import.meta.url));
const MIB = 1024 * 1024;
/** Read through the mirror before it is killed. */
const BEFORE_BYTES = 2 * MIB;
/** A busy machine takes its time. */
const PATIENCE_MS = 60_000;

/** Shows it; throws when a read fails or a source gave nothing. All it starts is gone afterwards. */
export async function demoMirror(init: {
  work: string;
  images: LabImages;
  say: (line: string) => void;
}): Promise<void> {
  const { images, say } = init;
  const dir = join(init.work, 'mirror');
  await mkdir(dir);
  await using stack = new AsyncDisposableStack();
  const registry = await startRegistry({ workDir: dir, storage: images.storage });
  stack.defer(() => registry.stop());
  const double = await startDouble(dir);
  stack.defer(async () => void (await double.daemon.stop('SIGKILL')));
  const folder = join(dir, 'certs.d', `127.0.0.1_${registry.port}_`);
  await mkdir(folder, { recursive: true });
  await writeFile(
    join(folder, 'hosts.toml'),
    `[host."${double.proxy}"]\nping_url = "${double.health}"\n[host."${double.proxy}".header]\nX-Dragonfly-Registry = "http://${registry.host}"\n`,
  );
  const shoal = await startShoal({
    dir: join(dir, 'shoal'),
    readyMs: PATIENCE_MS,
    config: `[mirrors]\nconfig_path = ${JSON.stringify(join(dir, 'certs.d'))}\n`,
  });
  stack.defer(async () => void (await shoal.stop()));
  say('');
  say('a Dragonfly client (a double of it) between this node and the registry');
  const image = join(dir, 'image');
  await mkdir(image);
  await shoal.post('/v1/mounts', { reference: `${registry.host}/${images.estargz}`, directory: image });
  stack.defer(async () => void (await run('umount', [image], { allowFailure: true })));
  await readAndKill(shoal, { image, mirror: double.daemon, say });
  const { stdout } = await run(process.execPath, [SHOAL_MAIN, 'mirrors', '--control', shoal.control]);
  for (const line of stdout.trimEnd().split('\n')) say(`  ${line}`);
}

async function readAndKill(
  shoal: LabShoal,
  { image, mirror, say }: { image: string; mirror: Daemon; say: (line: string) => void },
): Promise<void> {
  const status = (): Promise<StatusReport> => shoal.get<StatusReport>('/v1/status');
  const from = ({ bytesBySource }: StatusReport, name: string): string =>
    `${((bytesBySource[name] ?? 0) / MIB).toFixed(1)} MiB`;
  const hash = `find ${image}/usr/lib -type f -print0 | sort -z | xargs -0 cat | sha256sum`;
  const reading = run('sh', ['-c', `set -e; ${hash}`]);
  const isUnderWay = async (): Promise<boolean> => ((await status()).bytesBySource.mirror ?? 0) > BEFORE_BYTES;
  await waitFor('bytes from the mirror', isUnderWay, PATIENCE_MS);
  const before = await status();
  await mirror.stop('SIGKILL');
  say(`  mirror gave ${from(before, 'mirror')}, origin ${from(before, 'origin')}; killed in the middle of a read`);
  const first = (await reading).stdout;
  const after = await status();
  const again = (await run('sh', ['-c', hash])).stdout;
  say(`  the read went on: mirror ${from(after, 'mirror')}, origin ${from(after, 'origin')}`);
  const denied = after.faults.denied;
  say(`  reads that failed: ${denied}; ${first === again ? 'the bytes are right' : 'THE BYTES DIFFER'}`);
  if (denied > 0 || first !== again || (after.bytesBySource.origin ?? 0) === 0)
    throw new Error('the mirror demo failed');
}

async function startDouble(dir: string): Promise<{ daemon: Daemon; proxy: string; health: string }> {
  const daemon = startDaemon(process.execPath, [DOUBLE], { logPath: join(dir, 'dragonfly.log') });
  if (daemon.child.stdout === null) throw new Error('no output to read');
  const [line] = (await once(daemon.child.stdout, 'data', { signal: AbortSignal.timeout(20_000) })) as [Buffer];
  return { daemon, ...(JSON.parse(String(line)) as { proxy: string; health: string }) };
}
