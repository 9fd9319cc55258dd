import { access, cp, mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { prepareAwkwardImage } from './awkward-image.ts';
import { CORPUS_RECIPES, type CorpusRecipe } from './corpus-recipes.ts';
import { FORMATS } from './formats.ts';
import { addLayer, prepareImages, writeLayout } from './images.ts';
import { run } from './process.ts';
import { startRegistry } from './registry.ts';

/** An image of the corpus in a registry storage: `<name>:plain` and `<name>:<tag>` of every format. */
export interface CorpusImage {
  readonly name: string;
  readonly storage: string;
  /** Tags of formats that cannot express it, with the reason. */
  readonly cannot: Readonly<Record<string, string>>;
}

/** Raise when what is built changes, so that old caches are not used. */
const RECIPE = 1;

/** Builds what the cache lacks and gives all images; each has a storage of its own. */
export async function prepareCorpus(cacheDir: string, say: (line: string) => void): Promise<CorpusImage[]> {
  const images: CorpusImage[] = [];
  const first = await prepareImages(cacheDir, say);
  const awkward = await prepareAwkwardImage(cacheDir, say);
  for (const [name, { storage, plain }] of [
    ['debian-python', first],
    ['awkward', awkward],
  ] as const) {
    images.push(await prepare(cacheDir, { name, cannot: {}, from: { storage, image: plain } }, say));
  }
  for (const recipe of CORPUS_RECIPES) images.push(await prepare(cacheDir, recipe, say));
  return images;
}

type Source = { readonly from: { readonly storage: string; readonly image: string } };

async function prepare(
  cacheDir: string,
  recipe: CorpusRecipe | (Pick<CorpusRecipe, 'name' | 'cannot'> & Source),
  say: (line: string) => void,
): Promise<CorpusImage> {
  const { name, cannot } = recipe;
  const tags = FORMATS.map(({ tag }) => tag).join('-');
  const storage = join(cacheDir, `corpus-${RECIPE}-${name}-${tags}`);
  const image = { name: `corpus/${name}`, storage, cannot };
  if (await exists(join(storage, 'complete'))) return image;
  say(`building corpus image ${name} (once; it is cached)`);
  await mkdir(dirname(storage), { recursive: true });
  const work = await mkdtemp('/var/tmp/shoal-corpus-');
  try {
    const fresh = join(work, 'storage');
    if ('from' in recipe) await cp(recipe.from.storage, fresh, { recursive: true });
    const registry = await startRegistry({ workDir: work, storage: fresh });
    try {
      const plain = `docker://${registry.host}/corpus/${name}:plain`;
      const tls = ['--src-tls-verify=false', '--dest-tls-verify=false'];
      const from =
        'from' in recipe ? `docker://${registry.host}/${recipe.from.image}` : `oci:${await layout(work, recipe)}:image`;
      await run('skopeo', ['copy', ...('from' in recipe ? tls : tls.slice(1)), from, plain], { timeoutMs: 600_000 });
      for (const format of FORMATS) {
        if (cannot[format.tag] === undefined) await format.convert(registry, `corpus/${name}`, work);
      }
    } finally {
      await registry.stop();
    }
    await writeFile(join(fresh, 'complete'), '');
    await rm(storage, { recursive: true, force: true });
    await run('cp', ['-a', fresh, `${storage}.new`]);
    await rename(`${storage}.new`, storage);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return image;
}

async function layout(work: string, recipe: CorpusRecipe): Promise<string> {
  const dir = join(work, 'layout');
  await mkdir(join(dir, 'blobs/sha256'), { recursive: true });
  const layers = [];
  for (const tar of await recipe.layers(work)) layers.push(await addLayer(dir, tar));
  await writeLayout(dir, layers);
  return dir;
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}
