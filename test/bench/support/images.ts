import { randomBytes } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { access, copyFile, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { addLayer, type LayerFile, prepareImages, pushAndConvert, writeLayout } from '../../lab/images.ts';
import { run } from '../../lab/process.ts';
import { startRegistry } from '../../lab/registry.ts';
import { claimFolder } from './work-folder.ts';

const CACHE = fileURLToPath(new URL('../../../.cache/images', import.meta.url));
/** Raise when what is built changes. */
const RECIPE = 1;
/** Bytes of the one large file. */
export const BIG_BYTES = 512 * 1024 * 1024;
/** Bytes of files that only the later ones of kindred images have, at most. */
const OWN_BYTES = 64 * 1024 * 1024;
const SMALL_FILES = 2_000;
const MODEL_PARTS = 16;
const MODEL_PART_BYTES = 4 * 1024 * 1024;
const VARIANTS = 10;
const VARIANT_FILES = 300;

/** An image with one file of 512 MiB of libraries and programs (`/big`) and 2,000 small ones. */
export async function bigImage(say = console.log): Promise<{ storage: string; estargz: string; plain: string }> {
  const names = { plain: 'bench/big:plain', estargz: 'bench/big:esgz' };
  const storage = await cached(`bench-big-${RECIPE}`, async (work, fresh) => {
    say('building the image with one large file (once; it is cached)');
    const root = join(work, 'root');
    await mkdir(join(root, 'small'), { recursive: true });
    await gather(join(root, 'big'), BIG_BYTES);
    for (let index = 0; index < SMALL_FILES; index += 1) {
      await writeFile(join(root, 'small', `f${index}`), `file ${index}\n`.repeat(1 + (index % 400)));
    }
    await buildImage(work, fresh, [root], names);
  });
  return { storage, ...names };
}

/** Ten images: Debian + Python as two blobs of their own each, told apart by the files they add. */
export async function variantImages(say = console.log): Promise<{ storage: string; estargz: string[] }> {
  const names = Array.from({ length: VARIANTS }, (_, index) => ({
    plain: `bench/variant${index}:plain`,
    estargz: `bench/variant${index}:esgz`,
  }));
  const lab = await prepareImages(CACHE, say);
  const storage = await cached(`bench-variants-${RECIPE}`, async (work, fresh) => {
    say(`building ${VARIANTS} images (once; they are cached)`);
    const base = join(work, 'base');
    await unpackBase(lab.storage, lab.plain, base);
    for (const [index, name] of names.entries()) {
      await writeFile(join(base, 'variant'), `${index}\n`);
      const app = join(work, 'app');
      await mkdir(join(app, 'srv'), { recursive: true });
      for (let file = 0; file < VARIANT_FILES; file += 1) {
        await writeFile(join(app, 'srv', `f${file}`), `${index} ${file}\n`.repeat(50 + file));
      }
      await buildImage(work, fresh, [base, app], name);
      await rm(app, { recursive: true });
    }
  });
  return { storage, estargz: names.map((name) => name.estargz) };
}

/** Debian + Python, and 64 MiB that do not compress in files of 4 MiB (`/model/part-*`): a start by transfer, not by processor. */
export async function modelImage(say = console.log): Promise<{ storage: string; estargz: string }> {
  const names = { plain: 'bench/model:plain', estargz: 'bench/model:esgz' };
  const lab = await prepareImages(CACHE, say);
  const storage = await cached(`bench-model-${RECIPE}`, async (work, fresh) => {
    say('building the image with a model (once; it is cached)');
    const base = join(work, 'base');
    const app = join(work, 'app');
    await unpackBase(lab.storage, lab.plain, base);
    await mkdir(join(app, 'model'), { recursive: true });
    for (let part = 10; part < 10 + MODEL_PARTS; part += 1) {
      await writeFile(join(app, 'model', `part-${part}`), randomBytes(MODEL_PART_BYTES));
    }
    await buildImage(work, fresh, [base, app], names);
  });
  return { storage, ...names };
}

/**
 * An image of one layer, and two that have all its files and `OWN_BYTES` more, in plain `tar.gz`: `apart` has the files of
 * the first in two other layers and its own ones in a layer between them, `mixed` has all in one layer, in order of name.
 */
export async function kindredImages(
  say = console.log,
): Promise<Record<'storage' | 'first' | 'apart' | 'mixed', string>> {
  const names = { first: 'bench/kindred:first', apart: 'bench/kindred:apart', mixed: 'bench/kindred:mixed' };
  const lab = await prepareImages(CACHE, say);
  const storage = await cached(`bench-kindred-${RECIPE}`, async (work, fresh) => {
    say('building three images that have files in common (once; they are cached)');
    const base = join(work, 'base');
    const own = join(work, 'own');
    await unpackBase(lab.storage, lab.plain, base);
    await copyOwn(base, own);
    const shared = ['-C', base, '.'];
    const share = ['-C', base, './usr/share'];
    const images: [string, (readonly string[])[]][] = [
      [names.first, [shared]],
      [names.apart, [share, ['-C', own, '.'], ['--exclude=./usr/share', ...shared]]],
    ];
    for (const [name, layers] of images) await buildPlain(work, fresh, layers, name);
    await run('cp', ['-a', `${own}/.`, base]);
    await buildPlain(work, fresh, [shared], names.mixed);
  });
  return { storage, ...names };
}

/** Copies files of this machine that `base` does not have: those of every seventh folder, until there are `OWN_BYTES`. */
async function copyOwn(base: string, own: string): Promise<void> {
  const folders = new Map<string, string[]>();
  for (const top of ['/usr/lib', '/usr/share']) {
    for (const entry of await readdir(top, { recursive: true, withFileTypes: true })) {
      const files = folders.get(entry.parentPath) ?? [];
      folders.set(entry.parentPath, files);
      if (entry.isFile() && !(await exists(join(base, entry.parentPath, entry.name)))) files.push(entry.name);
    }
  }
  let left = OWN_BYTES;
  const seventh = [...folders.keys()].sort().filter((_, index) => index % 7 === 0);
  for (const folder of seventh) {
    await mkdir(join(own, folder), { recursive: true });
    for (const name of folders.get(folder) ?? []) {
      const { size } = await stat(join(folder, name));
      if (size > left || size > OWN_BYTES / 8) continue;
      left -= size;
      await copyFile(join(folder, name), join(own, folder, name));
    }
  }
  if (left > OWN_BYTES / 2) throw new Error(`this machine has too few files: ${left} bytes short`);
}

/** An image of plain layers, each of what `tar` is told. */
async function buildPlain(
  work: string,
  storage: string,
  layers: readonly (readonly string[])[],
  name: string,
): Promise<void> {
  const layout = join(work, 'layout');
  await mkdir(join(layout, 'blobs/sha256'), { recursive: true });
  const files = [];
  for (const layer of layers) files.push(await addTar(work, layout, layer));
  await writeLayout(layout, files);
  const registry = await startRegistry({ workDir: work, storage });
  try {
    const to = `docker://${registry.host}/${name}`;
    await run('skopeo', ['copy', '--dest-tls-verify=false', `oci:${layout}:image`, to], { timeoutMs: 300_000 });
  } finally {
    await registry.stop();
  }
  await rm(layout, { recursive: true });
}

async function cached(name: string, build: (work: string, fresh: string) => Promise<void>): Promise<string> {
  const storage = join(CACHE, name);
  if (await exists(storage)) return storage;
  await mkdir(CACHE, { recursive: true });
  const folder = await claimFolder();
  const work = folder.dir;
  try {
    const fresh = join(work, 'storage');
    await build(work, fresh);
    await run('cp', ['-a', fresh, `${storage}.new`]);
    await rename(`${storage}.new`, storage);
  } finally {
    await folder.close();
  }
  return storage;
}

async function buildImage(
  work: string,
  storage: string,
  roots: readonly string[],
  names: { plain: string; estargz: string },
): Promise<void> {
  const layout = join(work, 'layout');
  await mkdir(join(layout, 'blobs/sha256'), { recursive: true });
  const layers = [];
  for (const root of roots) layers.push(await addTar(work, layout, ['-C', root, '.']));
  await writeLayout(layout, layers);
  await pushAndConvert(work, storage, layout, names);
  for (const used of ['layout', 'containerd']) await rm(join(work, used), { recursive: true, force: true });
}

/** Adds what `tar` packs to a layout. */
async function addTar(work: string, layout: string, what: readonly string[]): Promise<LayerFile> {
  const tar = join(work, 'layer.tar');
  await run('tar', ['--numeric-owner', '--sort=name', '--mtime=@1700000000', '-cf', tar, ...what]);
  const layer = await addLayer(layout, tar);
  await rm(tar);
  return layer;
}

/** Unpacks the first layer of an image that lies in a registry's storage. */
async function unpackBase(storage: string, image: string, into: string): Promise<void> {
  const [repository, tag] = image.split(':') as [string, string];
  const registry = join(storage, 'docker/registry/v2');
  const blob = async (digest: string): Promise<string> => {
    const hex = digest.slice('sha256:'.length);
    return join(registry, 'blobs/sha256', hex.slice(0, 2), hex, 'data');
  };
  const link = await readFile(join(registry, `repositories/${repository}/_manifests/tags/${tag}/current/link`), 'utf8');
  const manifest = JSON.parse(await readFile(await blob(link.trim()), 'utf8')) as { layers: { digest: string }[] };
  await mkdir(into);
  await run('tar', ['-xzf', await blob((manifest.layers[0] as { digest: string }).digest), '-C', into]);
}

/** Concatenates libraries and programs of this machine, then the same again, until there are `bytes`. */
async function gather(file: string, bytes: number): Promise<void> {
  const found: string[] = [];
  for (const dir of ['/usr/lib', '/usr/bin']) {
    for (const entry of await readdir(dir, { recursive: true, withFileTypes: true })) {
      if (entry.isFile()) found.push(join(entry.parentPath, entry.name));
    }
  }
  const out = createWriteStream(file);
  let left = bytes;
  for (const path of found.sort()) {
    const { size } = await stat(path);
    if (size < 100_000 || size > 64 * 1024 * 1024 || left === 0) continue;
    const content = (await readFile(path)).subarray(0, left);
    left -= content.byteLength;
    if (!out.write(content)) await new Promise<void>((resolve) => out.once('drain', () => resolve()));
  }
  if (left > 0) throw new Error(`this machine has too few libraries: ${left} bytes short`);
  await new Promise<void>((resolve) => out.end(() => resolve()));
}

/** A copy of the large file as the image has it, to hold against the lazy one. */
export async function unpackBig(storage: string, image: string, into: string): Promise<string> {
  const work = join(into, 'unpacked');
  await unpackBase(storage, image, work);
  await copyFile(join(work, 'big'), join(into, 'big'));
  await rm(work, { recursive: true });
  return join(into, 'big');
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}
