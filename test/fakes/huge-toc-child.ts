/**
 * Reads a layer whose TOC has 500 MB of JSON, and prints how that ended and what it cost. Its own process, so that
 * resident memory can be measured. Argument: what the tar header claims (`honest`, `small` = 1 MiB, `limit` = 128 MiB).
 */
import { createGzip } from 'node:zlib';
import { sha256 } from '../../src/core/digest.ts';
import { ShoalError } from '../../src/errors.ts';
import { createEstargzReader } from '../../src/image/readers/estargz.ts';
import { estargzWithToc, tarHeader } from './estargz-image.ts';
import { MemoryBlob } from './memory-blob.ts';

const MIB = 1024 * 1024;
const TOC_MIB = 500;
const CLAIMS: Record<string, number> = { honest: TOC_MIB * MIB, small: MIB, limit: 128 * MIB };

const claim = CLAIMS[process.argv[2] ?? ''];
if (claim === undefined) throw new Error(`usage: huge-toc-child.ts ${Object.keys(CLAIMS).join('|')}`);

const image = estargzWithToc(await hugeToc(claim), sha256('whatever'));
const blob = new MemoryBlob(image.bytes, image.descriptor.digest);
const before = process.memoryUsage().rss;
let peak = before;
const sampler = setInterval(() => {
  peak = Math.max(peak, process.memoryUsage().rss);
}, 2);
const started = performance.now();
const code = await createEstargzReader()
  .read(image.descriptor, blob, { signal: AbortSignal.timeout(50_000) })
  .then(
    () => 'read',
    (error: unknown) => (error instanceof ShoalError ? error.code : String(error)),
  );
const tookMs = performance.now() - started;
clearInterval(sampler);
peak = Math.max(peak, process.memoryUsage().rss);
process.stdout.write(JSON.stringify({ code, grownBytes: peak - before, tookMs }));

/** Built as a stream: the parent's limit is about reading, but a small start makes growth visible. */
async function hugeToc(claimed: number): Promise<Buffer> {
  const gzip = createGzip({ level: 1 });
  const parts: Buffer[] = [];
  gzip.on('data', (part: Buffer) => parts.push(part));
  const ended = new Promise((resolve) => gzip.on('end', resolve));
  gzip.write(tarHeader('stargz.index.json', claimed));
  const spaces = Buffer.alloc(MIB, ' ');
  for (let written = 0; written < TOC_MIB; written += 1) {
    if (!gzip.write(spaces)) await new Promise((resolve) => gzip.once('drain', resolve));
  }
  gzip.end();
  await ended;
  return Buffer.concat(parts);
}
