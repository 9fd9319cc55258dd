import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { processIdentity } from '../../src/kernel/pidfd.ts';
import { labImages, mountsBelow, processesOf } from '../e2e/node-lab.ts';
import { type LabContainerd, startContainerd } from '../lab/containerd.ts';
import { addToError, run } from '../lab/process.ts';
import { type LabRegistry, startRegistry } from '../lab/registry.ts';
import { type LabShoal, SHOAL_MAIN, startShoal } from '../lab/shoal.ts';
import type { ReaderReport } from './compare-reader.ts';
import { type SlowProxy, startSlowProxy } from './slow-proxy.ts';

const CACHE = fileURLToPath(new URL('../../.cache/faults', import.meta.url));
/** Where runc keeps the containers of containerd's namespace k8s.io. */
const RUNC_STATE = '/run/containerd/runc/k8s.io';
const READER = fileURLToPath(new URL('./compare-reader.ts', import.meta.url));
const VERIFY = fileURLToPath(new URL('./verify-root.ts', import.meta.url));

/** A registry behind a slow link, the image's content as it should be read, and one daemon's folder. */
export interface FaultLab {
  readonly dir: string;
  /** The registry that runs now. */
  readonly registry: LabRegistry;
  /** Starts the registry again on its port, after it was stopped. */
  restartRegistry(): Promise<void>;
  readonly proxy: SlowProxy;
  /** Full name of the eStargz image, through the slow link. */
  readonly image: string;
  /** The same straight from the registry. */
  readonly directImage: string;
  readonly content: ImageContent;
  /** An id of a container that no other containerd of this machine has (runc keeps them in one place). */
  containerId(name: string): string;
  /** Starts (or starts again) the daemon of `<dir>/shoal`. */
  start(options?: { config?: string; readyMs?: number }): Promise<LabShoal>;
  /** Runs a shoal command against the daemon of `<dir>/shoal`. */
  shoal(...args: string[]): ReturnType<typeof run>;
  /** Mounts the image at a fresh directory with `shoal mount`. */
  mount(name: string): Promise<string>;
  /** Starts reading processes; each has `loops` readers. */
  read(mountpoint: string, init: { processes: number; loops: number }): Promise<Readers>;
}

/** The image unpacked, and its regular files that are not empty. */
export interface ImageContent {
  readonly directory: string;
  readonly list: string;
  readonly files: readonly { readonly path: string; readonly size: number }[];
}

/** Reading processes. */
export interface Readers {
  readonly children: readonly ChildProcess[];
  /** Ends them and adds up what they saw; throws when one does not end within `timeoutMs`. */
  stop(timeoutMs?: number): Promise<ReaderReport>;
}

/** Runs `use` in a lab of its own and takes everything away again, also after a failure. */
export async function withFaultLab<T>(
  init: { bytesPerSecond: number },
  use: (lab: FaultLab) => Promise<T>,
): Promise<T> {
  const dir = await mkdtemp('/var/tmp/shoal-faults-');
  await using stack = new AsyncDisposableStack();
  stack.defer(() => cleanUp(dir));
  const images = await labImages();
  const storage = images.storage;
  let registry = await startRegistry({ workDir: dir, storage });
  stack.defer(() => registry.stop());
  const content = await unpackedImage(registry.host, images.estargz);
  const proxy = await startSlowProxy({ upstreamPort: registry.port, bytesPerSecond: init.bytesPerSecond });
  stack.defer(() => proxy.stop());
  const home = join(dir, 'shoal');
  const daemons: LabShoal[] = [];
  const readers = new Set<ChildProcess>();
  stack.defer(async () => {
    for (const child of readers) child.kill('SIGKILL');
    for (const { daemon } of daemons) daemon.child.kill('SIGKILL');
    await Promise.all(daemons.map(({ daemon }) => daemon.exited));
  });
  const image = `${proxy.host}/${images.estargz}`;
  const shoal: FaultLab['shoal'] = (...args) => {
    const [command, ...rest] = args as [string, ...string[]];
    const flags = ['--config', join(home, 'config.toml'), '--root', join(home, 'root')];
    const sockets = ['--socket', join(home, 's.sock'), '--control', join(home, 'ctl.sock')];
    return run(process.execPath, [SHOAL_MAIN, command, ...flags, ...sockets, ...rest], {
      timeoutMs: 60_000,
      allowFailure: true,
    });
  };
  const lab: FaultLab = {
    dir,
    get registry() {
      return registry;
    },
    async restartRegistry() {
      registry = await startRegistry({ workDir: dir, storage, port: registry.port });
    },
    proxy,
    image,
    directImage: `${registry.host}/${images.estargz}`,
    content,
    containerId: (name) => `${basename(dir)}-${name}`,
    async start(options = {}) {
      const started = await startShoal({ dir: home, ...options });
      daemons.push(started);
      return started;
    },
    shoal,
    async mount(name) {
      const mountpoint = join(dir, name);
      await mkdir(mountpoint, { recursive: true });
      const { status, stderr } = await shoal('mount', image, mountpoint);
      if (status !== 0) throw new Error(`shoal mount ended with ${status}: ${stderr}`);
      return mountpoint;
    },
    read: (mountpoint, options) => startReaders(content, mountpoint, options, readers),
  };
  try {
    return await use(lab);
  } catch (error) {
    const log = await readFile(join(home, 'shoal.log'), 'utf8').catch(() => '');
    addToError(error, `\n--- end of shoal's log\n${log.split('\n').slice(-40).join('\n')}`);
    throw error;
  }
}

/** A containerd whose snapshotter is the lab's daemon; images come from `registryHost`. */
export async function startLabContainerd(lab: FaultLab, shoal: LabShoal, registryHost: string): Promise<LabContainerd> {
  const dir = join(lab.dir, 'containerd');
  await mkdir(dir, { recursive: true });
  return await startContainerd({ dir, proxy: { name: 'shoal', socket: shoal.socket }, registryHost });
}

/** Holds the output of sha256sum against the unpacked image: lines that differ, and how many there were. */
export async function checkSums(content: ImageContent, output: string): Promise<{ lines: number; wrong: string[] }> {
  const wrong: string[] = [];
  const lines = output.split('\n').filter((line) => /^[0-9a-f]{64} /.test(line));
  for (const line of lines) {
    const [, sum, path] = /^([0-9a-f]{64}) [ *](.*)$/.exec(line) as unknown as [string, string, string];
    const real = createHash('sha256')
      .update(await readFile(join(content.directory, path)))
      .digest('hex');
    if (real !== sum) wrong.push(path);
  }
  return { lines: lines.length, wrong };
}

/** The keeper that the record below `root` names, while it runs. */
export async function keeperPid(root: string): Promise<number | undefined> {
  try {
    const { keeper } = JSON.parse(await readFile(join(root, 'run/keeper.json'), 'utf8')) as { keeper: { pid: number } };
    return processIdentity(keeper.pid)?.pid;
  } catch {
    return undefined;
  }
}

/** What hashing everything that the stopped daemon's store calls present found. */
export async function verifyRoot(
  root: string,
): Promise<{ blobs: number; checked: number; dropped: number; presentBytes: number }> {
  const { stdout } = await run(process.execPath, [VERIFY, root], { timeoutMs: 90_000 });
  return JSON.parse(stdout);
}

async function startReaders(
  content: ImageContent,
  mountpoint: string,
  init: { processes: number; loops: number },
  all: Set<ChildProcess>,
): Promise<Readers> {
  const started = Array.from({ length: init.processes }, (_, index) => {
    const args = [READER, mountpoint, content.directory, content.list, String(index + 1), String(init.loops)];
    const child = spawn(process.execPath, args, {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, UV_THREADPOOL_SIZE: String(2 * init.loops) },
    });
    all.add(child);
    const reading = Promise.withResolvers<void>();
    const done = Promise.withResolvers<ReaderReport>();
    createInterface({ input: child.stdout }).on('line', (line) => {
      if (line === 'reading') reading.resolve();
      else done.resolve(JSON.parse(line) as ReaderReport);
    });
    child.on('exit', (code) => done.reject(new Error(`a reader ended with ${code}`)));
    done.promise.catch(() => {});
    return { child, reading: reading.promise, done: done.promise };
  });
  await Promise.all(started.map(({ reading }) => reading));
  return {
    children: started.map(({ child }) => child),
    async stop(timeoutMs = 60_000) {
      for (const { child } of started) child.kill('SIGTERM');
      const late = AbortSignal.timeout(timeoutMs);
      const hang = new Promise<never>((_, reject) => {
        late.addEventListener('abort', () => reject(new Error(`readers hang: no end within ${timeoutMs} ms`)));
      });
      const reports = await Promise.race([Promise.all(started.map(({ done }) => done)), hang]);
      return reports.reduce(addReports);
    },
  };
}

/** The sum of two reports. */
export function addReports(one: ReaderReport, other: ReaderReport): ReaderReport {
  const errors = { ...one.errors };
  for (const [code, count] of Object.entries(other.errors)) errors[code] = (errors[code] ?? 0) + count;
  return {
    reads: one.reads + other.reads,
    bytes: one.bytes + other.bytes,
    wrong: one.wrong + other.wrong,
    firstWrong: one.firstWrong ?? other.firstWrong,
    errors,
    longestMs: Math.max(one.longestMs, other.longestMs),
  };
}

/** Unpacks the image's layers with tar, once; whiteouts of the lab's image are plain files of `.wh.` names. */
async function unpackedImage(host: string, name: string): Promise<ImageContent> {
  const [repository, tag] = name.split(':') as [string, string];
  const manifest = (await (
    await fetch(`http://${host}/v2/${repository}/manifests/${tag}`, {
      headers: { accept: 'application/vnd.oci.image.manifest.v1+json' },
    })
  ).json()) as { config: { digest: string }; layers: { digest: string }[] };
  const kept = join(CACHE, manifest.config.digest.slice('sha256:'.length, 'sha256:'.length + 16));
  const directory = join(kept, 'tree');
  const list = join(kept, 'files.json');
  if (!existsSync(list)) {
    await mkdir(CACHE, { recursive: true });
    const fresh = await mkdtemp(join(CACHE, 'new-'));
    await mkdir(join(fresh, 'tree'));
    for (const { digest } of manifest.layers)
      await unpackLayer(fresh, `http://${host}/v2/${repository}/blobs/${digest}`);
    await writeFile(join(fresh, 'files.json'), JSON.stringify(await regularFiles(join(fresh, 'tree'))));
    await rm(kept, { recursive: true, force: true });
    await rename(fresh, kept);
  }
  return { directory, list, files: JSON.parse(await readFile(list, 'utf8')) };
}

async function unpackLayer(fresh: string, url: string): Promise<void> {
  const archive = join(fresh, 'layer.tar.gz');
  const tree = join(fresh, 'tree');
  await writeFile(archive, new Uint8Array(await (await fetch(url)).arrayBuffer()));
  await run('tar', ['-xzf', archive, '-C', tree, '--exclude=stargz.index.json', '--exclude=.no.prefetch.landmark']);
  await rm(archive);
  const { stdout } = await run('find', [tree, '-name', '.wh.*']);
  for (const whiteout of stdout.split('\n').filter((line) => line !== '')) {
    await rm(whiteout.replace('/.wh.', '/'), { recursive: true, force: true });
    await rm(whiteout);
  }
}

async function regularFiles(tree: string): Promise<{ path: string; size: number }[]> {
  const found: { path: string; size: number }[] = [];
  for (const entry of await readdir(tree, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    const { size } = await stat(path);
    if (size > 0) found.push({ path: path.slice(tree.length + 1), size });
  }
  return found;
}

async function cleanUp(dir: string): Promise<void> {
  const keeper = await keeperPid(join(dir, 'shoal/root'));
  // what containers and shims a failed test left
  for (const id of await readdir(RUNC_STATE).catch(() => [])) {
    if (id.startsWith(`${basename(dir)}-`))
      await run('runc', ['--root', RUNC_STATE, 'delete', '-f', id], { allowFailure: true });
  }
  for (const { pid } of await processesOf(dir)) process.kill(pid, 'SIGKILL');
  for (const target of (await mountsBelow(dir)).reverse()) {
    await run('umount', ['-l', target], { allowFailure: true });
  }
  // without mounts only the keeper is left; it goes last, so that no reader sees a hole
  if (keeper !== undefined) process.kill(keeper, 'SIGKILL');
  await rm(dir, { recursive: true, force: true });
}
