import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { unmount } from '../../src/kernel/mount-api.ts';
import { fetchManifest } from '../e2e/node-lab.ts';
import { fetchConfig, putBlob, putImage } from '../e2e/registry-content.ts';
import { chainIdOf } from '../e2e/tree-compare.ts';
import type { RafsOptions } from '../fakes/rafs/blob-writer.ts';
import { entriesOfDirectory } from '../fakes/rafs/entries.ts';
import { type RafsImage, rafsImage } from '../fakes/rafs/image.ts';
import { startContainerd } from './containerd.ts';
import { run } from './process.ts';
import type { LabRegistry } from './registry.ts';

/** Puts `name:tag` into the registry, a Nydus image of what containerd unpacks `name:plain` to, by the test's own writer. */
export async function convertToNydus(
  registry: LabRegistry,
  name: string,
  work: string,
  { tag, options }: { tag: string; options: Partial<RafsOptions> },
): Promise<void> {
  const dir = join(work, `containerd-${tag}`);
  await mkdir(dir, { recursive: true });
  const containerd = await startContainerd({ dir, registryHost: registry.host });
  let image: RafsImage;
  try {
    await containerd.criPull(`${registry.host}/${name}:plain`);
    const tree = join(dir, 'tree');
    await mkdir(tree);
    const snapshots = (...args: string[]) => containerd.ctr(['snapshots', '--snapshotter', 'overlayfs', ...args]);
    await snapshots('view', 'converted', await chainIdOf(registry, `${name}:plain`));
    await run('sh', ['-c', (await snapshots('mounts', tree, 'converted')).stdout]);
    try {
      // files go to two blobs, as if by layer
      const entries = entriesOfDirectory(tree).map((entry, index) => ({ ...entry, blob: blobOf(entry.inode, index) }));
      image = rafsImage(entries, options);
    } finally {
      await unmount(tree);
    }
  } finally {
    await containerd.stop();
  }
  await pushRafs(registry, name, tag, image);
}

/** All names of an inode keep their data in one blob. */
function blobOf(inode: string | undefined, index: number): number {
  return inode === undefined ? index % 2 : 0;
}

/** Pushes a Nydus image as nydusify does: data layers, then the bootstrap; the config is that of `name:plain`. */
export async function pushRafs(registry: LabRegistry, name: string, tag: string, image: RafsImage): Promise<void> {
  const { config } = await fetchConfig(registry, `${name}:plain`, await fetchManifest(registry, `${name}:plain`));
  const layers = [...image.blobs, image.bootstrap];
  for (const { bytes } of layers) await putBlob(registry, name, bytes);
  await putImage(registry, `${name}:${tag}`, {
    layers: layers.map(({ descriptor: { mediaType = '', digest, size = 0, annotations } }) => ({
      mediaType,
      digest,
      size,
      annotations,
    })),
    diffIds: [...image.blobs.map(({ descriptor }) => descriptor.digest), image.bootstrap.diffId],
    config,
  });
}
