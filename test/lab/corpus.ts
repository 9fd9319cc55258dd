import { access, cp, mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { chainIdOf, treeOf } from '../e2e/tree-compare.ts';
import { prepareAwkwardImage } from './awkward-image.ts';
import { startContainerd } from './containerd.ts';
import { CORPUS_RECIPES, type CorpusRecipe } from './corpus-recipes.ts';
import { FORMATS, type Workshop } from './formats.ts';
import { addLayer, prepareImages, writeLayout } from './images.ts';
import { run } from './process.ts';
import { startRegistry } from './registry.ts';
import type { TreeRow } from './tree-walk.ts';

/** An image of the corpus: `name:plain` and `name:<tag>` of every format are in the corpus' registry storage. */
export interface CorpusImage {
  readonly name: string;
  /** Tags of formats that cannot express it, with the reason. */
  readonly cannot: Readonly<Record<string, string>>;
  /** The tree of `name:plain` as overlayfs shows it, by path; and when unpacking it began, in seconds. */
  expected(): Promise<{ readonly rows: Map<string, TreeRow>; readonly unpackedAt: number }>;
}

/** All images, in one registry storage. */
export interface Corpus {
  readonly storage: string;
  readonly images: readonly CorpusImage[];
}

/** Raise when what is built changes, so that old caches are not used. */
const RECIPE = 4;

/** A recipe, or an image of another lab. */
type Source =
  | CorpusRecipe
  | (Pick<CorpusRecipe, 'name' | 'cannot'> & { readonly copy: (dir: string) => Promise<void> });

/** Images that take minutes each to build in every form and to compare: with SHOAL_CORPUS=full only. */
const LARGE = /^(debian-python|node|python-wheels|small-files-\d+|big-file-\d+)$/;
const { SHOAL_CORPUS: amount, SHOAL_CORPUS_IMAGES: wanted } = process.env;

/** SHOAL_CORPUS_IMAGES, a regular expression, names some of all; else it is the small ones, or all. */
function isWanted(name: string): boolean {
  if (wanted !== undefined) return new RegExp(wanted).test(name);
  return amount === 'full' || !LARGE.test(name);
}

/** Builds what the cache lacks, image by image, and gives all that are wanted, or just the one. */
export async function prepareCorpus(cacheDir: string, say: (line: string) => void, one?: string): Promise<Corpus> {
  const dir = join(cacheDir, `corpus-${RECIPE}-${FORMATS.map(({ tag }) => tag).join('-')}`);
  const storage = join(dir, 'registry');
  await mkdir(storage, { recursive: true });
  const every: Source[] = [
    fromLab('debian-python', () => prepareImages(cacheDir, say)),
    fromLab('awkward', () => prepareAwkwardImage(cacheDir, say)),
    ...CORPUS_RECIPES,
  ];
  const sources = every.filter(({ name }) => (one === undefined ? isWanted(name) : name === one));
  const missing: Source[] = [];
  for (const source of sources) if (!(await exists(treePath(dir, source.name)))) missing.push(source);
  if (missing.length > 0) await build(missing, dir, storage, say);
  const images = sources.map(({ name, cannot }) => ({
    name: `corpus/${name}`,
    cannot,
    expected: () => readTree(treePath(dir, name)),
  }));
  return { storage, images };
}

function fromLab(name: string, prepare: () => Promise<{ storage: string; plain: string }>): Source {
  return {
    name,
    cannot: {},
    async copy(layout) {
      const { storage, plain } = await prepare();
      const work = await mkdtemp('/var/tmp/shoal-corpus-');
      try {
        await cp(storage, join(work, 'storage'), { recursive: true });
        const registry = await startRegistry({ workDir: work, storage: join(work, 'storage') });
        const from = `docker://${registry.host}/${plain}`;
        await run('skopeo', ['copy', '--quiet', '--src-tls-verify=false', from, `oci:${layout}:image`], {
          timeoutMs: 600_000,
        }).finally(() => registry.stop());
      } finally {
        await rm(work, { recursive: true, force: true });
      }
    },
  };
}

async function build(
  sources: readonly Source[],
  dir: string,
  storage: string,
  say: (line: string) => void,
): Promise<void> {
  const work = await mkdtemp('/var/tmp/shoal-corpus-');
  await using stack = new AsyncDisposableStack();
  stack.defer(() => rm(work, { recursive: true, force: true }));
  const registry = await startRegistry({ workDir: work, storage });
  stack.defer(() => registry.stop());
  const home = join(work, 'containerd');
  await mkdir(home);
  const containerd = await startContainerd({ dir: home, registryHost: registry.host });
  stack.defer(() => containerd.stop());
  for (const source of sources) {
    say(`building corpus image ${source.name} (once; it is cached)`);
    await buildOne(source, { registry, containerd, work }, treePath(dir, source.name));
  }
}

async function buildOne(source: Source, workshop: Workshop, treeAt: string): Promise<void> {
  const { registry, containerd } = workshop;
  const work = await mkdtemp(join(workshop.work, 'image-'));
  const name = `corpus/${source.name}`;
  const layout = join(work, 'layout');
  await mkdir(join(layout, 'blobs/sha256'), { recursive: true });
  if ('copy' in source) await source.copy(layout);
  else {
    const layers = [];
    for (const tar of await source.layers(work)) layers.push(await addLayer(layout, tar));
    await writeLayout(layout, layers);
  }
  const plain = `docker://${registry.host}/${name}:plain`;
  await run('skopeo', ['copy', '--quiet', '--dest-tls-verify=false', `oci:${layout}:image`, plain], {
    timeoutMs: 600_000,
  });
  const unpackedAt = Math.floor(Date.now() / 1000);
  await containerd.criPull(`${registry.host}/${name}:plain`);
  const rows = await treeOf(containerd, await chainIdOf(registry, `${name}:plain`), join(work, 'tree'));
  for (const format of FORMATS) {
    if (source.cannot[format.tag] === undefined) await format.convert({ ...workshop, work }, name);
  }
  // last, and at once: it says that the image is complete
  await writeFile(`${treeAt}.new`, JSON.stringify({ unpackedAt, rows: [...rows.values()] }));
  await rename(`${treeAt}.new`, treeAt);
  await rm(work, { recursive: true, force: true });
}

function treePath(dir: string, name: string): string {
  return join(dir, `${name}.json`);
}

async function readTree(path: string): Promise<{ rows: Map<string, TreeRow>; unpackedAt: number }> {
  const { unpackedAt, rows } = JSON.parse(await readFile(path, 'utf8')) as { unpackedAt: number; rows: TreeRow[] };
  return { unpackedAt, rows: new Map(rows.map((row) => [row.path, row])) };
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}
