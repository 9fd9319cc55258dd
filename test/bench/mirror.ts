/**
 * Chunk reads of 1 MiB through a healthy mirror against the same reads straight from docker-registry, in turns in one
 * run; and straight reads again while a dead mirror is configured and its breaker is open. Prints p50 and p99 in ms and
 * their ratios. Usage: node test/bench/mirror.ts [rounds]. Goals: <= 1.15 healthy, <= 1.05 dead (the p50 of each).
 * The plain mirror is nginx with a warm cache; the Dragonfly client is the double of test/fakes, in a process of its own.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { systemClock } from '../../src/clock.ts';
import type { ChunkRef } from '../../src/core/chunk.ts';
import { digestHex, sha256 } from '../../src/core/digest.ts';
import { MANIFEST_TYPES } from '../../src/image/manifest.ts';
import { silentLogger } from '../../src/log.ts';
import { createMirrorChains } from '../../src/source/mirror/chains.ts';
import { createHostsDirectory } from '../../src/source/mirror/hosts-directory.ts';
import type { MirrorBlobs } from '../../src/source/mirror/mirror-host.ts';
import { createMirroredStore } from '../../src/source/mirror/mirrored-store.ts';
import { chainCredentials } from '../../src/source/origin/credentials.ts';
import { createOriginStore } from '../../src/source/origin/origin-store.ts';
import { createRegistryClient } from '../../src/source/origin/registry-client.ts';
import { createUrlPolicy } from '../../src/source/url-policy.ts';
import type { ChunkStore } from '../../src/store/chunk-store.ts';
import { count, sourceCounters } from '../../src/store/count.ts';
import { RealRegistry } from '../fakes/registry-real.ts';
import { startCachingMirror } from '../lab/nginx.ts';
import { freePort } from '../lab/registry.ts';
import { randomChunks, type TestBlob, testBlob } from '../store/blob-fixture.ts';
import { claimFolder } from './support/work-folder.ts';

const CHUNKS = 48;
const CHUNK_BYTES = 1024 * 1024;
const CONFIG = Buffer.from('{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}');
const parts = { clock: systemClock, log: silentLogger };

/** A cascade under test. */
interface Subject {
  readonly name: string;
  readonly store: ChunkStore;
  readonly counters: ReturnType<typeof sourceCounters>;
}

await main(Number(process.argv[2] ?? 6));

async function main(rounds: number): Promise<void> {
  const folder = await claimFolder();
  const { dir } = folder;
  await using stack = new AsyncDisposableStack();
  stack.defer(() => folder.close());
  const registry = stack.use(await RealRegistry.start({ folder: dir }));
  const blob = testBlob(randomChunks(CHUNKS, CHUNK_BYTES));
  await registry.push(await writeLayout(join(dir, 'layout'), blob.compressed), 'bench/app', 'latest');
  const nginx = await startCachingMirror({ dir: join(dir, 'nginx'), upstream: registry.host });
  stack.defer(() => nginx.stop());
  const double = spawn(process.execPath, [
    fileURLToPath(new URL('../fakes/dragonfly.ts', import.meta.url)),
    '0',
    join(dir, 'double'),
  ]);
  stack.defer(() => void double.kill('SIGKILL'));
  const [line] = (await once(double.stdout, 'data', { signal: AbortSignal.timeout(20_000) })) as [Buffer];
  const { proxy } = JSON.parse(String(line)) as { proxy: string };
  const dragonfly = `[host."${proxy}".header]\nX-Dragonfly-Registry = "http://${registry.host}"\n`;
  const dead = `[host."http://127.0.0.1:${await freePort()}"]\n`;
  const make = (name: string, hosts: string | undefined) => subject({ name, hosts, dir, host: registry.host, blob });
  const subjects = [
    await make('straight from the registry', undefined),
    await make('nginx mirror', `[host."${nginx.url}"]\n`),
    await make('Dragonfly double', dragonfly),
    await make('dead mirror, breaker open', dead),
  ];
  for (const each of subjects) stack.defer(() => each.store.close());
  for (const order of ['in order', 'at random'] as const) await compare(subjects, blob, { order, rounds });
}

async function compare(
  subjects: readonly Subject[],
  blob: TestBlob,
  { order, rounds }: { order: 'in order' | 'at random'; rounds: number },
): Promise<void> {
  const times = subjects.map((): number[] => []);
  // Warm: caches of the mirrors filled, connections open, the dead one found dead.
  for (const { store } of subjects) for (const index of indexesOf(blob, order)) await readOne(store, blob, index);
  for (let round = 0; round < rounds; round += 1) {
    for (const [turn, index] of indexesOf(blob, order).entries()) {
      // Side by side, and none always first: a busy moment of the machine hits all of them.
      for (let nth = 0; nth < subjects.length; nth += 1) {
        const at = (nth + turn) % subjects.length;
        times[at]?.push(await readOne((subjects[at] as Subject).store, blob, index));
      }
    }
  }
  const [straight] = times as [number[]];
  console.log(`chunks of 1 MiB one after the other, ${order}, ${rounds * CHUNKS} reads each:`);
  for (const [index, { name, counters }] of subjects.entries()) {
    const own = times[index] as number[];
    const ratio = (part: number): string => (quantile(own, part) / quantile(straight, part)).toFixed(2);
    const ms = (part: number): string => quantile(own, part).toFixed(2);
    console.log(
      `  ${name.padEnd(28)} p50 ${ms(0.5)} ms (${ratio(0.5)} x)  p99 ${ms(0.99)} ms (${ratio(0.99)} x)  mean ${(sum(own) / sum(straight)).toFixed(2)} x  ${counters.chunks} chunks from a mirror`,
    );
  }
}

/** The same order each time: at random by a step that is prime to the number of chunks. */
function indexesOf(blob: TestBlob, order: string): number[] {
  const rows = blob.chunks.map((_, row) => row);
  return order === 'in order' ? rows : rows.map((row) => (row * 29) % CHUNKS);
}

async function readOne(store: ChunkStore, blob: TestBlob, index: number): Promise<number> {
  const { digest, length } = blob.table.row(index);
  const ref: ChunkRef = { digest, length, blob: blob.digest, index };
  const startedMs = performance.now();
  await store.get(ref, { signal: AbortSignal.timeout(30_000) });
  return performance.now() - startedMs;
}

async function subject(init: {
  name: string;
  hosts: string | undefined;
  dir: string;
  host: string;
  blob: TestBlob;
}): Promise<Subject> {
  const { name, hosts, dir, host, blob } = init;
  const source = { registry: host, repository: 'bench/app' };
  const size = blob.compressed.byteLength;
  const root = join(dir, `certs-${name.replaceAll(/\W/g, '-')}`);
  if (hosts !== undefined) {
    await mkdir(join(root, host), { recursive: true });
    await writeFile(join(root, host, 'hosts.toml'), hosts);
  }
  const policy = createUrlPolicy();
  const direct = createRegistryClient({ ...parts, policy, credentials: chainCredentials([]) });
  const blobs: MirrorBlobs = { table: () => blob.table, find: () => ({ size, sources: [source] }) };
  const origin = createOriginStore({
    blobs: {
      table: () => blob.table,
      ranged: (digest) => direct.blob(source, { digest, size }, { signal: AbortSignal.timeout(30_000) }),
    },
  });
  const counters = sourceCounters('mirror');
  if (hosts === undefined) return { name, store: origin, counters };
  const directory = createHostsDirectory(parts, { path: root });
  const chains = createMirrorChains(
    { ...parts, policy, blobs, pullToken: undefined, directory },
    {
      firstByteTimeoutMs: 3_000,
      attemptTimeoutMs: 4_000,
      dragonfly: { tag: '', application: 'shoal', prefetch: false },
    },
  );
  return {
    name,
    store: createMirroredStore({
      ...parts,
      chains,
      blobs,
      origin,
      counted: (inner) => count({ ...parts, inner }, counters),
    }),
    counters,
  };
}

function quantile(values: readonly number[], part: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] as number;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/** An OCI layout with one layer; skopeo does not look inside. */
async function writeLayout(directory: string, bytes: Uint8Array): Promise<string> {
  await mkdir(join(directory, 'blobs/sha256'), { recursive: true });
  const put = async (content: Uint8Array, mediaType: string) => {
    const digest = sha256(content);
    await writeFile(join(directory, 'blobs/sha256', digestHex(digest)), content);
    return { mediaType, digest, size: content.byteLength };
  };
  const config = await put(CONFIG, 'application/vnd.oci.image.config.v1+json');
  const layer = await put(bytes, 'application/vnd.oci.image.layer.v1.tar+gzip');
  const manifest = { schemaVersion: 2, mediaType: MANIFEST_TYPES[0], config, layers: [layer] };
  const entry = await put(Buffer.from(JSON.stringify(manifest)), MANIFEST_TYPES[0]);
  await writeFile(join(directory, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [entry] }));
  await writeFile(join(directory, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  return directory;
}
