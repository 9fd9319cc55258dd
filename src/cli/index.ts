import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { systemClock } from '../clock.ts';
import type { Config } from '../config.ts';
import type { Digest } from '../core/digest.ts';
import { ShoalError, withContext } from '../errors.ts';
import { encodeLayerIndex, type LayerIndex } from '../image/layer-index/layer-index.ts';
import type { ManifestLayer } from '../image/manifest.ts';
import { createPassThreads, type PassThreads } from '../image/pass/pass-threads.ts';
import { hostPlatform } from '../image/platform.ts';
import { createLayerReaders, readLayer } from '../image/readers/index.ts';
import { parseReference, type Reference } from '../image/reference.ts';
import { acceptedIndex, createLocalIndexes, isRanged, type LocalIndexes } from '../lazy/local-indexes.ts';
import { createConfiguredPusher, createConfiguredRegistry } from '../lazy/registry.ts';
import { silentLogger } from '../log.ts';
import { type FetchedImage, fetchImage } from '../source/origin/fetch-image.ts';
import { fetchIndex, listIndexes, pushIndexes } from '../source/origin/index-artifact.ts';
import type { RegistryClient } from '../source/origin/registry-client.ts';
import type { Command, Invocation } from './command.ts';
import { EXIT, UsageError } from './exit-code.ts';
import { humanBytes, printable, table } from './output.ts';

/** `shoal index`: indexes of plain layers, made, listed and verified without a daemon. */
export const indexCommand: Command = {
  name: 'index',
  args: 'build|list|verify REF',
  argCount: { min: 2, max: 2 },
  summary: 'make, list or verify the indexes with which plain layers are read lazily',
  description:
    'build reads every plain layer (tar.gz, tar) of the image once and keeps its index below the root, for the daemon\nto use; with --push it also stores them in the registry, as an artifact that refers to the image. list shows the\nindexes a registry has for the image. verify reads the layers and tells whether those indexes are true to them;\nit ends with 1 when one is not.',
  options: { push: { type: 'boolean', description: 'store what build made in the registry' } },
  async run(invocation) {
    const [action, text] = invocation.args as [string, string];
    const run = ACTIONS.get(action);
    if (run === undefined) throw new UsageError(`unknown action ${action}: build, list or verify`, 'index');
    const config = invocation.config();
    const registry = createConfiguredRegistry(config, { log: silentLogger, clock: systemClock });
    const threads = createPassThreads();
    try {
      const reference = parseReference(text);
      const { signal } = invocation;
      const image = await fetchImage(registry, reference, { platform: hostPlatform(process.arch), signal });
      return await run({ invocation, config, registry, threads, reference, image });
    } finally {
      await threads.close();
      await registry.close();
    }
  },
};

interface Work {
  readonly invocation: Invocation;
  readonly config: Config;
  readonly registry: RegistryClient;
  readonly threads: PassThreads;
  readonly reference: Reference;
  readonly image: FetchedImage;
}

const ACTIONS: ReadonlyMap<string, (work: Work) => Promise<number>> = new Map([
  ['build', build],
  ['list', list],
  ['verify', verify],
]);

async function build(work: Work): Promise<number> {
  const { config, reference, image, registry } = work;
  const { io, options, signal } = work.invocation;
  const directory = join(config.root, 'indexes');
  const local = createLocalIndexes({ log: silentLogger }, { directory, maxBytes: config.layers.indexBytesMax });
  const built: { layer: Digest; bytes: Uint8Array }[] = [];
  const rows: string[][] = [];
  for (const layer of image.manifest.layers) {
    const made = await indexOf(work, layer, local);
    if (made.bytes !== undefined) built.push({ layer: layer.digest, bytes: made.bytes });
    rows.push([
      short(layer.digest),
      humanBytes(layer.size),
      made.bytes === undefined ? '' : humanBytes(made.bytes.byteLength),
      made.note,
    ]);
  }
  io.out(table([['LAYER', 'SIZE', 'INDEX', ''], ...rows], [1, 2]));
  if (options.push !== true) return EXIT.ok;
  if (built.length === 0) throw new ShoalError('NOT_FOUND', 'there is no index to push: no layer needs one');
  const pusher = createConfiguredPusher(config, { log: silentLogger, clock: systemClock });
  try {
    const digest = await pushIndexes({ client: registry, pusher }, reference, { image, indexes: built }, { signal });
    io.out(`pushed ${reference.registry}/${reference.repository}@${digest}\n`);
  } finally {
    await pusher.close();
  }
  return EXIT.ok;
}

async function indexOf(
  work: Work,
  layer: ManifestLayer,
  local: LocalIndexes,
): Promise<{ bytes?: Uint8Array; note: string }> {
  if (layer.size <= work.config.layers.wholeBytesMax) return { note: 'small: it is fetched whole' };
  const kept = await local.get(layer.digest);
  if (kept !== undefined) return { bytes: kept, note: 'was built before' };
  const format = await ownFormat(work, layer);
  if (format !== undefined) return { note: `has an index of its own (${format})` };
  const index = await passOver(work, layer);
  if (!isRanged(index)) return { note: `${index.packing} that cannot be read by range` };
  const bytes = encodeLayerIndex(index);
  await local.put(layer.digest, bytes);
  return { bytes, note: index.packing };
}

/** The format of a layer that is lazy without us. */
async function ownFormat(work: Work, layer: ManifestLayer): Promise<string | undefined> {
  const { signal } = work.invocation;
  try {
    const blob = await work.registry.blob(work.reference, layer, { signal });
    const { tocBytesMax, layerEntriesMax } = work.config.limits;
    const readers = createLayerReaders({ estargz: { maxTocBytes: tocBytesMax, maxEntries: layerEntriesMax } });
    return (await readLayer(layer, blob, { signal, readers })).format;
  } catch (error) {
    if (error instanceof ShoalError && error.code === 'UNSUPPORTED_LAYER') return undefined;
    throw error;
  }
}

async function passOver(work: Work, layer: ManifestLayer): Promise<LayerIndex> {
  const { signal } = work.invocation;
  const blob = await work.registry.blob(work.reference, layer, { signal });
  const fd = openSync('/dev/null', 'w');
  try {
    const maxEntries = work.config.limits.layerEntriesMax;
    const passed = await work.threads.pass(blob, { fd, maxEntries }, { signal });
    return { ...passed, layer: layer.digest };
  } catch (error) {
    throw withContext(error, { layer: layer.digest });
  } finally {
    closeSync(fd);
  }
}

async function list({ registry, reference, image, invocation }: Work): Promise<number> {
  const found = await listIndexes(registry, reference, image.manifest.digest, { signal: invocation.signal });
  const rows = found.map(({ layer, digest, size, artifact }) => [
    short(layer),
    humanBytes(size),
    digest,
    short(artifact),
  ]);
  invocation.io.out(
    found.length === 0 ? 'no indexes\n' : table([['LAYER', 'SIZE', 'INDEX', 'ARTIFACT'], ...rows], [1]),
  );
  return EXIT.ok;
}

async function verify(work: Work): Promise<number> {
  const { registry, reference, image, invocation } = work;
  const { signal, io } = invocation;
  const found = await listIndexes(registry, reference, image.manifest.digest, { signal });
  const passed = new Map<Digest, LayerIndex>();
  const rows: string[][] = [];
  let isTrue = true;
  for (const descriptor of found) {
    const verdict = await judge(work, descriptor, passed);
    isTrue &&= verdict === 'true';
    rows.push([short(descriptor.layer), short(descriptor.digest), printable(verdict)]);
  }
  io.out(rows.length === 0 ? 'no indexes\n' : table([['LAYER', 'INDEX', 'VERDICT'], ...rows], []));
  return isTrue ? EXIT.ok : EXIT.failure;
}

async function judge(
  work: Work,
  descriptor: { layer: Digest; digest: Digest; size: number },
  passed: Map<Digest, LayerIndex>,
): Promise<string> {
  const { signal } = work.invocation;
  const layer = work.image.manifest.layers.find(({ digest }) => digest === descriptor.layer);
  if (layer === undefined) return 'about no layer of this image';
  const bytes = await fetchIndex(work.registry, work.reference, descriptor, { signal });
  let index: LayerIndex;
  try {
    index = acceptedIndex(layer.digest, bytes);
  } catch (error) {
    return withContext(error, {}).message;
  }
  const truth = passed.get(layer.digest) ?? (await passOver(work, layer));
  passed.set(layer.digest, truth);
  return differenceOf(index, truth) ?? 'true';
}

/** What an index says that the layer does not; undefined when content and tree are the same. */
function differenceOf(index: LayerIndex, truth: LayerIndex): string | undefined {
  if (index.diffId !== truth.diffId) return 'FALSE: another DiffID';
  if (Buffer.compare(index.tree, truth.tree) !== 0) return 'FALSE: another file tree';
  for (const column of ['digests', 'blockStart', 'length'] as const) {
    const [said, found] = [index.chunks.columns[column], truth.chunks.columns[column]];
    if (said.length !== found.length || said.some((value, at) => value !== found[at])) return 'FALSE: other content';
  }
  return undefined;
}

function short(digest: Digest): string {
  return digest.slice(0, 'sha256:'.length + 12);
}
