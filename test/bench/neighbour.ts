/**
 * Chunks of 1 MiB from a neighbour in another process, over pinned TLS, verified: latency one at a time, throughput with
 * 16 in flight; beside it nginx with TLS and undici without any check. `npm run bench -- neighbour [--seconds N]`
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Pool } from 'undici';
import { systemClock } from '../../src/clock.ts';
import { freeBytes } from '../../src/core/byte-pool.ts';
import type { ChunkRef } from '../../src/core/chunk.ts';
import type { Digest } from '../../src/core/digest.ts';
import { createHedging } from '../../src/core/policy/hedging.ts';
import { hasCode } from '../../src/errors.ts';
import { silentLogger } from '../../src/log.ts';
import { createChunkClient } from '../../src/source/peer/data/chunk-client.ts';
import { makeTlsIdentity } from '../../src/source/peer/data/identity.ts';
import { createNeighbourStore } from '../../src/source/peer/data/neighbour-store.ts';
import type { Neighbour, PeerDirectory } from '../../src/source/peer/directory.ts';
import { claimFolder } from './support/work-folder.ts';

const MIB = 1024 * 1024;
const CHUNKS = 64;
/** As many as the holder keeps in memory: what a flash crowd asks for. */
const HOT = 16;
const IN_FLIGHT = 16;
const { values } = parseArgs({ options: { seconds: { type: 'string', default: '3' } } });
const SECONDS = Number(values.seconds);

interface Held {
  readonly neighbour: Neighbour;
  readonly digests: readonly Digest[];
  readonly blob: Digest;
}

const folder = await claimFolder();
const work = folder.dir;
const identity = makeTlsIdentity();
const holder = spawn(
  process.execPath,
  [
    fileURLToPath(new URL('support/chunk-holder.ts', import.meta.url)),
    join(work, 'holder'),
    `${CHUNKS}`,
    identity.fingerprint,
  ],
  { stdio: ['pipe', 'pipe', 'inherit'] },
);
const lines = createInterface({ input: holder.stdout })[Symbol.asyncIterator]();
const { neighbour, digests, blob } = JSON.parse((await lines.next()).value ?? '') as Held;

function directoryOf(): PeerDirectory {
  const self: Neighbour = { ...neighbour, id: 'reader', fingerprint: identity.fingerprint, dataPort: 0 };
  return {
    self,
    peers: () => [neighbour],
    async *find() {
      yield neighbour;
    },
    haveMap: async () => undefined,
    claim: async () => [],
    settle() {},
    announce() {},
    withdraw() {},
    byFingerprint: () => undefined,
    ban() {},
  };
}

const client = createChunkClient({ identity });
const neighbours = createNeighbourStore({
  directory: directoryOf(),
  client,
  table: () => undefined,
  hedging: createHedging({ sharers: () => 2 }),
  clock: systemClock,
  log: silentLogger,
});
const signal = new AbortController().signal;
let failed = 0;
const refs: ChunkRef[] = digests.map((digest, index) => ({ digest, length: MIB, blob, index }));

async function viaStore(index: number): Promise<void> {
  try {
    const chunk = await neighbours.get(refs[index % refs.length] as ChunkRef, { signal, urgency: 'prefetch' });
    if (chunk.owned) freeBytes(chunk.bytes);
  } catch (error) {
    // A machine that is busy with other work can be silent for longer than a neighbour may be.
    if (!hasCode(error, 'CHUNK_MISSING')) throw error;
    failed += 1;
    await systemClock.sleep(1_000);
  }
}

/** Times of single reads, ms, ascending. */
async function oneAtATime(read: (index: number) => Promise<void>, set: number): Promise<number[]> {
  const times: number[] = [];
  for (const end = performance.now() + SECONDS * 1_000; performance.now() < end; ) {
    const started = performance.now();
    await read(times.length % set);
    times.push(performance.now() - started);
  }
  return times.sort((a, b) => a - b);
}

/** Processor seconds of this process and of these so far. */
function cpuSeconds(pids: readonly number[]): number {
  const { user, system } = process.cpuUsage();
  const ticks = pids.map((pid) => {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
    return Number(fields[11]) + Number(fields[12]);
  });
  return (user + system) / 1e6 + ticks.reduce((all, each) => all + each, 0) / 100;
}

/** MB/s with IN_FLIGHT reads under way, and processor seconds of both sides per GB. */
async function manyAtATime(
  read: (index: number) => Promise<void>,
  set: number,
  pids: readonly number[],
): Promise<{ rate: number; cpuPerGb: number }> {
  let count = 0;
  const cpu = cpuSeconds(pids);
  const started = performance.now();
  const end = started + SECONDS * 1_000;
  await Promise.all(
    Array.from({ length: IN_FLIGHT }, async () => {
      while (performance.now() < end) {
        const index = count;
        count += 1;
        await read(index % set);
      }
    }),
  );
  const bytes = count * MIB;
  return {
    rate: bytes / 1e3 / (performance.now() - started),
    cpuPerGb: (cpuSeconds(pids) - cpu) / (bytes / 1e9),
  };
}

async function startNginx(): Promise<{ process: ChildProcess; port: number }> {
  const port = 20_000 + (process.pid % 20_000);
  const { key, cert } = makeTlsIdentity();
  await writeFile(join(work, 'key.pem'), key);
  await writeFile(join(work, 'cert.pem'), cert);
  const config = `
daemon off; worker_processes 1; pid ${work}/nginx.pid; error_log ${work}/error.log; user root;
events { worker_connections 256; }
http { access_log off; sendfile on; keepalive_requests 1000000; client_body_temp_path ${work}/b; proxy_temp_path ${work}/p;
fastcgi_temp_path ${work}/f; uwsgi_temp_path ${work}/u; scgi_temp_path ${work}/s;
server { listen 127.0.0.1:${port} ssl; ssl_certificate ${work}/cert.pem; ssl_certificate_key ${work}/key.pem;
ssl_protocols TLSv1.3; root ${work}/holder; } }`;
  await writeFile(join(work, 'nginx.conf'), config);
  const nginx = spawn('nginx', ['-p', work, '-e', join(work, 'error.log'), '-c', join(work, 'nginx.conf')], {
    stdio: 'inherit',
  });
  await systemClock.sleep(500);
  return { process: nginx, port };
}

/** One chunk through undici's `dispatch`, copied into one buffer, not verified. */
function viaUndici(pool: Pool, index: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const bytes = Buffer.allocUnsafeSlow(MIB);
    let filled = 0;
    pool.dispatch(
      { path: `/chunk-${index}`, method: 'GET' },
      {
        onRequestStart() {},
        onResponseStart() {},
        onResponseData(_controller, part) {
          bytes.set(part, filled);
          filled += part.byteLength;
        },
        onResponseEnd() {
          if (filled === MIB) resolve();
          else reject(new Error(`${filled} bytes`));
          freeBytes(bytes);
        },
        onResponseError: (_controller, error) => reject(error),
      },
    );
  });
}

const at = (times: readonly number[], part: number): number =>
  times[Math.floor(part * (times.length - 1))] ?? Number.NaN;

try {
  const nginx = await startNginx();
  const pool = new Pool(`https://127.0.0.1:${nginx.port}`, {
    connections: IN_FLIGHT,
    pipelining: 1,
    connect: { rejectUnauthorized: false },
  });
  try {
    const viaNginx = (index: number): Promise<void> => viaUndici(pool, index);
    // Connections warm, code compiled.
    await manyAtATime(viaStore, CHUNKS, []);
    await manyAtATime(viaNginx, CHUNKS, []);
    const rows: Record<string, Record<string, string>> = {};
    const worker = Number(readFileSync(`/proc/${nginx.process.pid}/task/${nginx.process.pid}/children`, 'utf8'));
    for (const [name, read, set, pids] of [
      ['neighbour, all read from its file', viaStore, CHUNKS, [holder.pid ?? 0]],
      ['neighbour, asked for by several', viaStore, HOT, [holder.pid ?? 0]],
      ['nginx + TLS → undici, not verified', viaNginx, CHUNKS, [worker]],
    ] as const) {
      const times = await oneAtATime(read, set);
      const { rate, cpuPerGb } = await manyAtATime(read, set, pids);
      rows[name] = {
        'p50 ms': at(times, 0.5).toFixed(2),
        'p99 ms': at(times, 0.99).toFixed(2),
        [`MB/s, ${IN_FLIGHT} in flight`]: rate.toFixed(0),
        'CPU s/GB, both': cpuPerGb.toFixed(2),
      };
    }
    console.table(rows);
    if (failed > 0) console.log(`${failed} reads failed and were made again`);
  } finally {
    await pool.destroy();
    nginx.process.kill();
    await once(nginx.process, 'exit');
  }
  holder.stdin.end();
  console.log('holder', (await lines.next()).value);
} finally {
  await client.close();
  holder.kill();
  await folder.close();
}
