/**
 * One pass over a tar.gz layer: speed per core, and its share of what inflate and SHA-256 alone reach in the same run;
 * memory, size of the index; then each span decoded alone.
 * `npm run bench -- layer-pass [--layer FILE.tar.gz] [--gib N]` (default: the Debian base layer of the lab; `--gib`
 * makes a layer of that many GiB or little more out of this machine's /usr)
 */
import { hash } from 'node:crypto';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { freeBytes, takeBytes } from '../../src/core/byte-pool.ts';
import { parseDigest } from '../../src/core/digest.ts';
import { decodeExtent } from '../../src/image/codec.ts';
import { encodeLayerIndex } from '../../src/image/layer-index/layer-index.ts';
import type { RangedBlob } from '../../src/image/layer-reader.ts';
import { createPassThreads } from '../../src/image/pass/pass-threads.ts';
import { readWindow } from '../../src/image/pass/windows.ts';
import { prepareImages } from '../lab/images.ts';
import { run } from '../lab/process.ts';
import { passFloor } from './support/pass-floor.ts';
import { claimFolder } from './support/work-folder.ts';

const { values } = parseArgs({ options: { layer: { type: 'string' }, gib: { type: 'string' } } });
const { signal } = new AbortController();
const folder = await claimFolder();
const work = folder.dir;

/** The largest plain layer of the lab's image, or one made here. */
async function layerPath(): Promise<string> {
  if (values.layer !== undefined) return values.layer;
  if (values.gib !== undefined) {
    const path = join(work, 'layer.tar.gz');
    // Whole archives one after another, each without its two closing blocks; the last gets them back.
    const archive = (name: string) => `tar -b 1 --transform "s,^,${name}/," -C / -c usr/bin usr/share | head -c -1024`;
    const script = [
      `bytes=$(${archive('count')} | wc -c)`,
      `copies=$(( (${Math.ceil(Number(values.gib) * 2 ** 30)} + bytes - 1) / bytes ))`,
      `{ for i in $(seq $copies); do ${archive('$i')}; done; head -c 1024 /dev/zero; } | gzip -6 > ${path}`,
    ];
    await run('bash', ['-c', script.join('\n')], { timeoutMs: 3_600_000 });
    return path;
  }
  const images = await prepareImages(fileURLToPath(new URL('../../.cache/images', import.meta.url)), console.log);
  const found = await run('find', [join(images.storage, 'docker/registry/v2/blobs'), '-name', 'data', '-size', '+10M']);
  const [first] = found.stdout.trim().split('\n');
  return first as string;
}

async function fileBlob(path: string): Promise<RangedBlob & { close(): Promise<void> }> {
  const sha = (await run('sha256sum', [path], { timeoutMs: 600_000 })).stdout.slice(0, 64);
  const file = await open(path);
  return {
    digest: parseDigest(`sha256:${sha}`),
    size: (await stat(path)).size,
    async read(offset, length) {
      const { buffer } = await file.read(takeBytes(length), 0, length, offset);
      return buffer;
    },
    close: () => file.close(),
  };
}

const quantile = (sorted: readonly number[], q: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] as number;

try {
  const path = await layerPath();
  const blob = await fileBlob(path);
  const fd = openSync(join(work, 'device'), 'w');
  const threads = createPassThreads();
  const cpu = process.cpuUsage();
  const begun = performance.now();
  const passed = await threads.pass(blob, { fd }, { signal });
  const seconds = (performance.now() - begun) / 1000;
  const used = process.cpuUsage(cpu);
  closeSync(fd);
  await threads.close();
  const mb = passed.chunks.dataBytes / 1e6;
  const cpuSeconds = (used.user + used.system) / 1e6;
  const status = readFileSync('/proc/self/status', 'utf8');
  const index = encodeLayerIndex({ ...passed, layer: blob.digest });
  console.log(`layer ${(blob.size / 1e6).toFixed(0)} MB, ${mb.toFixed(0)} MB of files, ${passed.chunks.count} chunks`);
  console.log(`pass: ${(mb / seconds).toFixed(0)} MB/s, ${(mb / cpuSeconds).toFixed(0)} MB per CPU second`);
  const floor = 1 / passFloor(path);
  console.log(
    `inflate and SHA-256 alone: ${floor.toFixed(0)} MB per CPU second; ratio ${(mb / cpuSeconds / floor).toFixed(2)}`,
  );
  console.log(`peak RSS: ${(Number(/VmHWM:\s+(\d+)/.exec(status)?.[1]) / 1024).toFixed(0)} MiB`);
  console.log(
    `index: ${index.byteLength} bytes, ${((100 * index.byteLength) / blob.size).toFixed(2)} % of the layer, sha256 ${hash('sha256', index).slice(0, 12)}`,
  );
  const times: number[] = [];
  let bytes = 0;
  for (let row = 0; row < passed.chunks.extentCount; row += 1) {
    const { offset, length, codec, decodedLength, checkpoint } = passed.chunks.extent(row);
    const coded = await blob.read(offset, length, { signal });
    const from = performance.now();
    const { windows } = passed;
    const window =
      checkpoint?.window === undefined || windows === undefined
        ? undefined
        : await readWindow(checkpoint.window, async (at, count) => windows.subarray(at, at + count));
    const start = { bits: checkpoint?.bits ?? 0, window };
    const decoded = await decodeExtent(codec, coded, decodedLength, { signal, start });
    times.push(performance.now() - from);
    freeBytes(decoded);
    bytes += decodedLength;
  }
  const sorted = times.toSorted((a, b) => a - b);
  const total = times.reduce((sum, each) => sum + each, 0);
  console.log(
    `spans: ${times.length}, p50 ${quantile(sorted, 0.5).toFixed(1)} ms, p95 ${quantile(sorted, 0.95).toFixed(1)} ms, ${(bytes / 1e3 / total).toFixed(0)} MB/s`,
  );
  await blob.close();
} finally {
  await folder.close();
}
