import { randomBytes } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { access, copyFile, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { addLayer, prepareImages, pushAndConvert, writeLayout } from '../../lab/images.ts';
import { run } from '../../lab/process.ts';
import { claimFolder } from './work-folder.ts';

const CACHE = fileURLToPath(new URL('../../../.cache/images', import.meta.url));
/** Raise when what is built changes. */
const RECIPE = 1;
/** Bytes of the one large file. */
export const BIG_BYTES = 512 * 1024 * 1024;
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
  for (const root of roots) {
    const tar = join(work, 'layer.tar');
    await run('tar', ['--numeric-owner', '--sort=name', '--mtime=@1700000000', '-cf', tar, '-C', root, '.']);
    layers.push(await addLayer(layout, tar));
    await rm(tar);
  }
  await writeLayout(layout, layers);
  await pushAndConvert(work, storage, layout, names);
  for (const used of ['layout', 'containerd']) await rm(join(work, used), { recursive: true, force: true });
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
