import { join } from 'node:path';
import { fetchManifest } from '../e2e/node-lab.ts';
import { fetchConfig, putBlob, putImage } from '../e2e/registry-content.ts';
import { chainIdOf, withTree } from '../e2e/tree-compare.ts';
import type { RafsOptions } from '../fakes/rafs/blob-writer.ts';
import { entriesOfDirectory } from '../fakes/rafs/entries.ts';
import { type RafsImage, rafsImage } from '../fakes/rafs/image.ts';
import type { Workshop } from './formats.ts';
import type { LabRegistry } from './registry.ts';

/** Puts `name:tag` into the registry, a Nydus image of what containerd unpacks `name:plain` to, by the test's own writer. */
export async function convertToNydus(
  { registry, containerd, work }: Workshop,
  name: string,
  { tag, options }: { tag: string; options: Partial<RafsOptions> },
): Promise<void> {
  const plain = `${name}:plain`;
  await containerd.criPull(`${registry.host}/${plain}`);
  const chainId = await chainIdOf(registry, plain);
  const image = await withTree(containerd, chainId, join(work, `tree-${tag}`), (tree) => {
    // files go to two blobs, as if by layer
    const entries = entriesOfDirectory(tree).map((entry, index) => ({ ...entry, blob: blobOf(entry.inode, index) }));
    return rafsImage(entries, options);
  });
  const { config } = await fetchConfig(registry, plain, await fetchManifest(registry, plain));
  await pushRafs(registry, name, tag, image, config);
}

/** All names of an inode keep their data in one blob. */
function blobOf(inode: string | undefined, index: number): number {
  return inode === undefined ? index % 2 : 0;
}

/** Pushes a Nydus image as nydusify does: data layers, then the bootstrap. */
export async function pushRafs(
  registry: LabRegistry,
  name: string,
  tag: string,
  image: RafsImage,
  config: Record<string, unknown> = CONFIG,
): Promise<void> {
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

const CONFIG = { architecture: process.arch === 'arm64' ? 'arm64' : 'amd64', os: 'linux', config: { Cmd: ['sh'] } };
