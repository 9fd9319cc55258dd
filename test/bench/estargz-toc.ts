/**
 * Reads an eStargz TOC: `node test/bench/estargz-toc.ts [entries=100000]`. Prints how long the whole of `readLayer`
 * took, its parts, the longest time the event loop stood still, and memory, for a synthetic layer of that many files.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { sha256 } from '../../src/core/digest.ts';
import { byteString, emptyDir } from '../../src/image/layer-tree.ts';
import { FOOTER_BYTES, parseEstargzFooter } from '../../src/image/readers/estargz-footer.ts';
import { parseToc } from '../../src/image/readers/estargz-toc.ts';
import { decodeTocMember } from '../../src/image/readers/estargz-toc-member.ts';
import { readLayer } from '../../src/image/readers/index.ts';
import { createTreeBuilder } from '../../src/image/tree-builder.ts';
import { type EstargzImage, estargzWithJson, MemberWriter, type RawEntry } from '../fakes/estargz-image.ts';
import { MemoryBlob } from '../fakes/memory-blob.ts';

const MIB = 1024 * 1024;
const count = Number(process.argv[2] ?? 100_000);
const signal = AbortSignal.timeout(300_000);
const image = layerOf(count);
const blob = new MemoryBlob(image.bytes, image.descriptor.digest);

globalThis.gc?.();
const before = process.memoryUsage();
const times: number[] = [];
const cpuTimes: number[] = [];
let result: Awaited<ReturnType<typeof readLayer>> | undefined;
let peak = before.rss;
const delay = monitorEventLoopDelay({ resolution: 1 });
for (let run = 0; run < 5; run += 1) {
  result = undefined;
  const sampler = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage().rss);
  }, 5);
  delay.enable();
  const started = performance.now();
  const cpu = process.cpuUsage();
  result = await readLayer(image.descriptor, blob, { signal });
  times.push(performance.now() - started);
  const { user, system } = process.cpuUsage(cpu);
  cpuTimes.push((user + system) / 1000);
  delay.disable();
  clearInterval(sampler);
}
globalThis.gc?.();
const after = process.memoryUsage();

const footer = parseEstargzFooter(image.bytes.subarray(-FOOTER_BYTES), image.bytes.byteLength);
if (footer?.kind !== 'inline') throw new Error('no footer');
const member = image.bytes.subarray(footer.tocOffset, footer.tocEnd);
const digest = sha256(jsonOf(count));
let json: Uint8Array = new Uint8Array();
const decodeMs = await timed(async () => {
  json = await decodeTocMember(member, { digest, maxJsonBytes: 1024 * MIB, signal });
});
const parseMs = await timed(() => parseToc(json, () => {}, { signal }));
const treeMs = await timed(async () => {
  const tree = createTreeBuilder();
  for (let n = 0; n < count; n += 1) tree.add(byteString(nameOf(n)), emptyDir());
  tree.build();
});

console.log(`entries             ${count}, JSON ${mib(json.byteLength)} MiB, compressed ${mib(member.byteLength)} MiB`);
console.log(
  `readLayer           ${times.map((ms) => ms.toFixed(0)).join(', ')} ms, ${blob.reads.length / 5} requests each`,
);
console.log(`  CPU, all threads  ${cpuTimes.map((ms) => ms.toFixed(0)).join(', ')} ms`);
console.log(`  decode and hash   ${decodeMs.toFixed(0)} ms`);
console.log(`  parse only        ${parseMs.toFixed(0)} ms`);
console.log(`  tree builder only ${treeMs.toFixed(0)} ms`);
console.log(
  `event loop stood    ${(delay.max / 1e6).toFixed(0)} ms at most, p99 ${(delay.percentile(99) / 1e6).toFixed(0)} ms`,
);
console.log(`resident memory     ${mib(before.rss)} MiB before, ${mib(peak)} MiB at most over five reads`);
console.log(`heap kept           ${mib(after.heapUsed - before.heapUsed)} MiB (meaningful with --expose-gc)`);
console.log(`chunks              ${result?.content.chunks.count}`);

async function timed(work: () => Promise<void>): Promise<number> {
  const started = performance.now();
  await work();
  return performance.now() - started;
}

function nameOf(n: number): string {
  return `usr/lib/python3/dist-packages/package${Math.floor(n / 200)}/module${Math.floor(n / 20)}/file-${n}.py`;
}

/** As Go's json.MarshalIndent writes it, which is what makes real TOCs as large as they are. */
function jsonOf(entries: number): Buffer {
  const list: RawEntry[] = [];
  for (let n = 0; n < entries; n += 1) {
    const digest = sha256(String(n));
    list.push({
      name: nameOf(n),
      type: 'reg',
      size: 1000 + (n % 5000),
      modtime: new Date(1.7e12 + n * 1000).toISOString().replace('.000', ''),
      mode: 420,
      offset: 100 + n * 10,
      digest,
      chunkDigest: digest,
    });
  }
  return Buffer.from(JSON.stringify({ version: 1, entries: list }, null, '\t'));
}

function layerOf(entries: number): EstargzImage {
  const members = new MemberWriter();
  members.addRaw(Buffer.alloc(entries * 10 + 100));
  return estargzWithJson(jsonOf(entries), members);
}

function mib(bytes: number): string {
  return (bytes / MIB).toFixed(1);
}
