import { access, constants, mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ImageStatus, StatusReport } from '../../src/control/status.ts';
import { unmount } from '../../src/kernel/mount-api.ts';
import { type LabContainerd, startContainerd } from '../lab/containerd.ts';
import { type LabImages, prepareImages } from '../lab/images.ts';
import { mountsBelow, processesOf } from '../lab/leftovers.ts';
import { addToError, waitFor } from '../lab/process.ts';
import { type LabRegistry, startRegistry } from '../lab/registry.ts';
import { type LabShoal, startShoal } from '../lab/shoal.ts';

export { mountsBelow, processesOf } from '../lab/leftovers.ts';
export { runScript } from '../lab/run-script.ts';

/** Where built images are kept between runs. */
export const CACHE = fileURLToPath(new URL('../../.cache/images', import.meta.url));

/** One node: a registry, shoal and a containerd that uses it, all below `dir`. */
export interface LabNode {
  readonly dir: string;
  readonly registry: LabRegistry;
  readonly shoal: LabShoal;
  readonly containerd: LabContainerd;
}

/** Why tests with these programs cannot run here: no root, or the program that is missing; false when they can. */
export async function whyNot(...programs: readonly string[]): Promise<string | false> {
  if (process.geteuid?.() !== 0) return 'needs root';
  for (const program of programs) {
    const found = await Promise.any(
      (process.env.PATH ?? '').split(delimiter).map((folder) => access(join(folder, program), constants.X_OK)),
    ).then(
      () => true,
      () => false,
    );
    if (!found) return `needs ${program}`;
  }
  return false;
}

/** Programs that `withNode` starts. */
export const NODE_PROGRAMS = ['containerd', 'ctr', 'ctr-remote', 'runc', 'docker-registry'] as const;

/** The lab's images, built when the cache does not have them. */
export function labImages(): Promise<LabImages> {
  return prepareImages(CACHE, () => {});
}

/** Runs `use` with a directory on a real file system; afterwards nothing may be mounted, run or lie there. */
export async function withDirectory<T>(use: (dir: string) => Promise<T>): Promise<T> {
  const dir = await mkdtemp('/var/tmp/shoal-e2e-');
  try {
    const result = await use(dir);
    const left = [
      ...(await mountsBelow(dir)),
      ...(await processesOf(dir)).map(({ pid, command }) => `${pid} ${command}`),
    ];
    if (left.length > 0) throw new Error(`left behind: ${left.join('; ')}`);
    return result;
  } finally {
    for (const { pid } of await processesOf(dir)) process.kill(pid, 'SIGKILL');
    for (const target of (await mountsBelow(dir)).reverse()) await unmount(target).catch(() => {});
    await rm(dir, { recursive: true, force: true });
  }
}

/** Runs `use` on a fresh node and takes it down again, whatever happens; shoal must end with status 0. */
export async function withNode(
  init: { storage: string; config?: string },
  use: (node: LabNode) => Promise<void>,
): Promise<void> {
  await withDirectory(async (dir) => {
    await using stack = new AsyncDisposableStack();
    const registry = await startRegistry({ workDir: dir, storage: init.storage });
    stack.defer(() => registry.stop());
    const shoal = await startShoal({ dir: join(dir, 'shoal'), config: init.config ?? '' });
    stack.defer(async () => {
      const code = await shoal.stop();
      if (code !== 0) throw new Error(`shoal ended with ${code}:\n${await logTail(shoal)}`);
    });
    const home = join(dir, 'containerd');
    await mkdir(home);
    const proxy = { name: 'shoal', socket: shoal.socket };
    const containerd = await startContainerd({ dir: home, proxy, registryHost: registry.host });
    stack.defer(() => containerd.stop());
    try {
      await use({ dir, registry, shoal, containerd });
    } catch (error) {
      addToError(error, `\n--- end of shoal's log\n${await logTail(shoal)}`);
      throw error;
    }
  });
}

async function logTail(shoal: LabShoal): Promise<string> {
  return (await readFile(shoal.daemon.logPath, 'utf8')).split('\n').slice(-25).join('\n');
}

/** What `shoal status --json` would print. */
export function statusOf(shoal: LabShoal): Promise<StatusReport> {
  return shoal.get<StatusReport>('/v1/status');
}

/** Bytes fetched so far, once reading ahead has come to rest. */
export async function settledBytes(shoal: LabShoal): Promise<number> {
  let last = -1;
  let same = 0;
  return await waitFor('rest of the fetching', async () => {
    const { fetchedBytes } = await statusOf(shoal);
    same = fetchedBytes === last ? same + 1 : 0;
    last = fetchedBytes;
    return same >= 10 ? fetchedBytes : false;
  });
}

/**
 * Waits until the images that were removed have left nothing: containerd's collector runs by itself soon after a
 * removal, and shoal deletes what it releases.
 */
export async function emptied({ containerd, shoal }: LabNode, namespaces = ['k8s.io']): Promise<void> {
  await waitFor('an empty node', async () => {
    const left: string[] = [];
    for (const namespace of namespaces) {
      const listed = await containerd.ctr(['snapshots', '--snapshotter', containerd.snapshotter, 'ls'], { namespace });
      left.push(...listed.stdout.trim().split('\n').slice(1));
    }
    left.push(...(await mountsBelow(shoal.root)));
    for (const folder of ['blobs', 'boot', 'mnt', 'snapshots']) {
      const names = await readdir(join(shoal.root, folder)).catch(() => []);
      left.push(...names.map((name) => `${folder}/${name}`));
    }
    const status = await statusOf(shoal);
    const isLazy = ({ layers }: ImageStatus): boolean => layers.some(({ format }) => format !== 'unpacked');
    left.push(...status.images.filter(isLazy).map(({ reference }) => reference));
    if (left.length > 0) throw new Error(`still there: ${left.join(', ')}`);
    return true;
  });
}

/** A descriptor as manifests have it. */
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly annotations?: Record<string, string>;
}

/** An image manifest with its own digest. */
export interface Manifest {
  readonly digest: string;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
}

/** The manifest a registry has under `name:tag`. */
export async function fetchManifest(registry: LabRegistry, image: string): Promise<Manifest> {
  const [name, tag] = image.split(':') as [string, string];
  const accept = 'application/vnd.oci.image.manifest.v1+json';
  const response = await fetch(`http://${registry.host}/v2/${name}/manifests/${tag}`, { headers: { accept } });
  if (!response.ok) throw new Error(`manifest of ${image}: status ${response.status}`);
  return {
    digest: response.headers.get('docker-content-digest') ?? '',
    ...((await response.json()) as object),
  } as Manifest;
}
