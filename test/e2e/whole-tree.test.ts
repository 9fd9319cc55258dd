import assert from 'node:assert/strict';
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { sha256 } from '../../src/core/digest.ts';
import { unmount } from '../../src/kernel/mount-api.ts';
import { prepareAwkwardImage } from '../lab/awkward-image.ts';
import { type LabContainerd, startContainerd } from '../lab/containerd.ts';
import type { LabImages } from '../lab/images.ts';
import { run, waitFor } from '../lab/process.ts';
import { type LabRegistry, startRegistry } from '../lab/registry.ts';
import type { TreeRow } from '../lab/tree-walk.ts';
import {
  CACHE,
  fetchManifest,
  labImages,
  NODE_PROGRAMS,
  statusOf,
  whyNot,
  withDirectory,
  withNode,
} from './node-lab.ts';
import { fetchConfig } from './registry-content.ts';

const skip = await whyNot(...NODE_PROGRAMS);
const WALKER = fileURLToPath(new URL('../lab/tree-walk.ts', import.meta.url));

test('Debian with Python: the whole tree is what overlayfs shows', { skip }, async (t) => {
  await compareTraps(t, await labImages());
});

test('layers by umoci and by hand: the whole tree is what overlayfs shows', { skip }, async (t) => {
  await compareTraps(t, await prepareAwkwardImage(CACHE, () => {}));
});

async function compareTraps(t: TestContext, images: LabImages): Promise<void> {
  const unpackedAt = Math.floor(Date.now() / 1000);
  const expected = await unpackedTree(images);
  assert.ok(expected.size > 5_000, `${expected.size} entries`);
  for (const kind of ['fanotify', 'fuse']) {
    await t.test(kind, async () => {
      await withNode({ storage: images.storage, config: `[trap]\nkind = "${kind}"\n` }, async (node) => {
        const check = async (image: string, title: string): Promise<void> => {
          const reference = `${node.registry.host}/${image}`;
          await node.containerd.criPull(reference);
          const shown = await treeOf(node.containerd, await chainIdOf(node.registry, image), join(node.dir, title));
          const status = await statusOf(node.shoal);
          assert.equal(status.daemon.trap.kind, kind);
          const pulled = status.images.find((each) => each.reference === reference);
          assert.ok(pulled !== undefined && pulled.error === undefined, `every layer is lazy: ${pulled?.error}`);
          assert.deepEqual(differences(expected, shown, unpackedAt), [], title);
          await node.containerd.criRemove(reference);
          const left = () => readdir(join(node.shoal.root, 'blobs'));
          await waitFor('the layers to go', async () => (await left()).length === 0);
        };
        await check(images.estargz, 'estargz');
        await check(images.plain, 'read-whole');
        await check(images.plain, 'by-index');
      });
    });
  }
}

/** The same image as containerd unpacks it for overlayfs. */
function unpackedTree(images: LabImages): Promise<Map<string, TreeRow>> {
  return withDirectory(async (dir) => {
    const registry = await startRegistry({ workDir: dir, storage: images.storage });
    try {
      const containerd = await startContainerd({ dir, registryHost: registry.host });
      try {
        await containerd.criPull(`${registry.host}/${images.estargz}`);
        return await treeOf(containerd, await chainIdOf(registry, images.estargz), join(dir, 'tree'));
      } finally {
        await containerd.stop();
      }
    } finally {
      await registry.stop();
    }
  });
}

/** Walks what a container of the image would see; `chainId` names the snapshot that a pull has made. */
async function treeOf(containerd: LabContainerd, chainId: string, target: string): Promise<Map<string, TreeRow>> {
  const snapshots = (...args: string[]) =>
    containerd.ctr(['snapshots', '--snapshotter', containerd.snapshotter, ...args]);
  await mkdir(target);
  await snapshots('prepare', 'walked', chainId);
  await run('sh', ['-c', (await snapshots('mounts', target, 'walked')).stdout]);
  try {
    const { stdout } = await run(process.execPath, [WALKER, target]);
    const lines = stdout.trimEnd().split('\n');
    return new Map(lines.map((line) => JSON.parse(line) as TreeRow).map((row) => [row.path, row]));
  } finally {
    await unmount(target);
    await snapshots('rm', 'walked');
  }
}

/** What containerd names the snapshot of all layers by (image-spec, ChainID). */
async function chainIdOf(registry: LabRegistry, image: string): Promise<string> {
  const { diffIds } = await fetchConfig(registry, image, await fetchManifest(registry, image));
  return diffIds.reduce((chain, diffId) => sha256(Buffer.from(`${chain} ${diffId}`)));
}

/** The entries that are not the same, as lines for people; `unpackedAt` is when unpacking began, in seconds. */
function differences(expected: Map<string, TreeRow>, shown: Map<string, TreeRow>, unpackedAt: number): string[] {
  const lines: string[] = [];
  for (const path of new Set([...expected.keys(), ...shown.keys()])) {
    const [theirs, ours] = [expected.get(path), shown.get(path)];
    if (isEstargzOwn(path) && ours === undefined) continue;
    if (theirs === undefined || ours === undefined) {
      lines.push(`${path}: only ${ours === undefined ? 'unpacked' : 'lazily'}`);
      continue;
    }
    for (const field of new Set([...Object.keys(theirs), ...Object.keys(ours)]) as Set<keyof TreeRow>) {
      if (field === 'mtime' && (isTimeOfUnpacking(theirs, unpackedAt) || isBefore1970(theirs, ours))) continue;
      if (field === 'links' && ours.links === namesOf(shown, ours)) continue;
      const [wanted, got] = [JSON.stringify(theirs[field]), JSON.stringify(ours[field])];
      if (wanted !== got) lines.push(`${path}: ${field} ${got}, unpacked ${wanted}`);
    }
  }
  return lines;
}

/**
 * Unpacking gives the present time to directories that a layer only implies (its tar holds files below them, not them);
 * lazily they keep the lower layer's time. The root directory is the container's own, made a moment ago in both cases.
 */
function isTimeOfUnpacking({ path, type, mtime }: TreeRow, unpackedAt: number): boolean {
  return path === '/' || (type === 'directory' && mtime >= unpackedAt);
}

/** containerd's unpacking knows no time before 1970 and takes its first second instead. */
function isBefore1970(unpacked: TreeRow, lazily: TreeRow): boolean {
  return unpacked.mtime === 0 && lazily.mtime < 0;
}

/** The names a file really has: overlayfs goes on counting those that a higher layer removed. */
function namesOf(tree: Map<string, TreeRow>, { path, sameAs = path }: TreeRow): number {
  return [...tree.values()].filter((row) => (row.sameAs ?? row.path) === sameAs).length;
}

/** Files of the format itself: unpacking a layer as a tar shows them, reading it as eStargz does not. */
function isEstargzOwn(path: string): boolean {
  return ['/stargz.index.json', '/.no.prefetch.landmark', '/.prefetch.landmark'].includes(path);
}
