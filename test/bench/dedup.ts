/**
 * What of an image is fetched when another one with most of its files is there: plain `tar.gz` layers whose indexes are at
 * hand, all files read by a container of either image. The second image is `apart` (the same files in other layers, its own
 * in one of theirs) or `mixed` (all files in one layer). `npm run bench -- dedup`
 */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { StatusReport } from '../../src/control/status.ts';
import { type Digest, digestHex } from '../../src/core/digest.ts';
import { decodeLayerIndex, type LayerIndex } from '../../src/image/layer-index/layer-index.ts';
import { readSealed } from '../../src/store/sealed-file.ts';
import { startContainerd } from '../lab/containerd.ts';
import { startRegistry } from '../lab/registry.ts';
import { startShoal } from '../lab/shoal.ts';
import { kindredImages } from './support/images.ts';
import { giveIndexes, makeIndexes } from './support/plain-indexes.ts';
import { buildRelease } from './support/release.ts';
import { claimFolder } from './support/work-folder.ts';

const READ_ALL = ['sh', '-c', 'find / -xdev -type f -exec cat {} + | wc -c'];
const program = await buildRelease();
const images = await kindredImages();
const folder = await claimFolder();
const work = folder.dir;
const kept = join(work, 'indexes');

/** Compressed bytes that came from the registry for either image. */
async function fetched(host: string, config: string, second: string): Promise<{ first: number; second: number }> {
  const dir = join(work, 'run');
  await mkdir(join(dir, 'c'), { recursive: true });
  await giveIndexes(kept, join(dir, 's'));
  const shoal = await startShoal({ dir: join(dir, 's'), config, program });
  const proxy = { name: 'shoal', socket: shoal.socket };
  const containerd = await startContainerd({ dir: join(dir, 'c'), registryHost: host, proxy });
  const readWhole = async (image: string, id: string): Promise<number> => {
    await containerd.criPull(`${host}/${image}`);
    const result = await containerd.runContainer(`${host}/${image}`, id, READ_ALL);
    if (!(Number(result.stdout) > 0)) throw new Error(`container failed: ${result.stderr}`);
    return (await shoal.get<StatusReport>('/v1/status')).fetchedBytes;
  };
  try {
    const first = await readWhole(images.first, 'first');
    return { first, second: (await readWhole(second, 'second')) - first };
  } finally {
    await containerd.stop();
    await shoal.stop();
    await rm(dir, { recursive: true, force: true });
  }
}

/** The indexes of an image's layers, first to last. */
async function indexesOf(host: string, image: string): Promise<LayerIndex[]> {
  const [repository, tag] = image.split(':');
  const headers = { accept: 'application/vnd.oci.image.manifest.v1+json' };
  const answer = await fetch(`http://${host}/v2/${repository}/manifests/${tag}`, { headers });
  const { layers } = (await answer.json()) as { layers: { digest: Digest }[] };
  const sealed = await Promise.all(layers.map(({ digest }) => readSealed(join(kept, digestHex(digest)), 'index')));
  return sealed.map((bytes) => decodeLayerIndex(bytes as Uint8Array));
}

const hexAt = ({ chunks }: LayerIndex, row: number): string => Buffer.from(chunks.digestBytesAt(row)).toString('hex');

/** Bytes of the chunks that `indexes` have beyond `known`, and of the compressed spans they lie in. */
function ownOf(indexes: readonly LayerIndex[], known: ReadonlySet<string>): { chunks: number; spans: number } {
  const seen = new Set(known);
  const own = { chunks: 0, spans: 0 };
  for (const index of indexes) {
    let end = 0;
    for (let row = 0; row < index.chunks.count; row += 1) {
      const { extent, length } = index.chunks.row(row);
      if (seen.has(hexAt(index, row))) continue;
      seen.add(hexAt(index, row));
      own.chunks += length;
      const span = index.chunks.extent(extent);
      const spanEnd = span.offset + span.length;
      own.spans += Math.max(0, spanEnd - Math.max(span.offset, end));
      end = Math.max(end, spanEnd);
    }
  }
  return own;
}

const mb = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;

try {
  const registry = await startRegistry({ workDir: join(work, 'r'), storage: images.storage });
  const { host } = registry;
  const config = `[registry."${host}"]\nplain_http = true\nallow_private = true\n`;
  try {
    const references = [images.first, images.apart, images.mixed].map((image) => `${host}/${image}`);
    await makeIndexes({ folder: kept, work: join(work, 'pass'), config, references, program });
    const known = new Set<string>();
    for (const index of await indexesOf(host, images.first)) {
      for (let row = 0; row < index.chunks.count; row += 1) known.add(hexAt(index, row));
    }
    // What an image of the own files alone would be: that is how few bytes could have them.
    const packed = (await indexesOf(host, images.apart))[1]?.chunks.compressedSize as number;
    console.log(
      `fetched: compressed bytes of layers, as they come from the registry. Own: what only the second image has,`,
    );
    console.log(
      `as chunks (uncompressed), as the compressed spans they lie in, and ${mb(packed)} as a tar.gz of its own.`,
    );
    const widths = [8, 15, 16, 10, 13, 16, 14];
    const line = (cells: readonly string[]): void =>
      console.log(cells.map((cell, column) => cell.padStart(widths[column] as number)).join('  '));
    line(['second', 'first fetched', 'second fetched', 'own bytes', 'their spans', 'fetched/tar.gz', 'fetched/bytes']);
    for (const how of ['apart', 'mixed'] as const) {
      const bytes = await fetched(host, config, images[how]);
      const own = ownOf(await indexesOf(host, images[how]), known);
      const ratios = [bytes.second / packed, bytes.second / own.chunks].map((ratio) => ratio.toFixed(3));
      line([how, mb(bytes.first), mb(bytes.second), mb(own.chunks), mb(own.spans), ...ratios]);
    }
  } finally {
    await registry.stop();
  }
} finally {
  await folder.close();
}
