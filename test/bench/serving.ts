/**
 * What serving costs a node's own containers and pulls (L5): 4 KiB reads of a complete layer with a cold page cache, and
 * Prepare, while 8 neighbours read from it as fast as its upload budget allows ÷ the same while nobody does, in turns.
 * The neighbours run on this machine too, with the processors that nothing else wants.
 * `npm run bench -- serving [--rounds N] [--rate BYTES_PER_SECOND] [--source]` (drops the machine's page cache)
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { decodeChunkTable } from '../../src/core/chunk-table-codec.ts';
import { generateSwarmKey } from '../../src/source/peer/swarm-key.ts';
import { decodeSealed } from '../../src/store/sealed-file.ts';
import { run } from '../lab/process.ts';
import { freePort, startRegistry } from '../lab/registry.ts';
import { startShoal } from '../lab/shoal.ts';
import { connectSnapshots, type SnapshotsClient } from '../snapshot/client.ts';
import type { ReadersInit } from './support/chunk-readers.ts';
import { bigImage } from './support/images.ts';
import { buildRelease, median } from './support/release.ts';
import { claimFolder } from './support/work-folder.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    /** What a link of 1 Gbit/s carries. */
    rate: { type: 'string', default: '120000000' },
    source: { type: 'boolean', default: false },
  },
});
const ROUNDS = Number(values.rounds);
const READERS = 8;
const READS = 2_000;
const PREPARES = 200;
const PREPARES_PER_SECOND = 50;
const TRAP_READER = fileURLToPath(new URL('../trap/reader.ts', import.meta.url));
const NEIGHBOURS = fileURLToPath(new URL('support/chunk-readers.ts', import.meta.url));
const program = values.source ? undefined : await buildRelease();
const image = await bigImage();
const folder = await claimFolder();

interface Times {
  readonly reads: { p50: number; p99: number }[];
  readonly prepares: { p50: number; p99: number }[];
}

/** Latencies of both kinds, µs, for as long as each takes. */
async function measure(file: string, client: SnapshotsClient, round: string, into: Times): Promise<void> {
  await run('sync', []);
  await writeFile('/proc/sys/vm/drop_caches', '3');
  const reading = run(process.execPath, [TRAP_READER, 'time', file, `${READS}`, `${round.length}`]);
  into.reads.push(JSON.parse((await reading).stdout) as Times['reads'][number]);
  const micros: number[] = [];
  const began = performance.now();
  const calls: Promise<void>[] = [];
  for (let index = 0; index < PREPARES; index += 1) {
    await sleep(Math.max(0, began + (index * 1_000) / PREPARES_PER_SECOND - performance.now()));
    const start = performance.now();
    const key = `${round}-${index}`;
    calls.push(client.prepare(key, '').then(() => void micros.push((performance.now() - start) * 1_000)));
  }
  await Promise.all(calls);
  await Promise.all(Array.from({ length: PREPARES }, (_, index) => client.remove(`${round}-${index}`)));
  micros.sort((a, b) => a - b);
  const at = (share: number): number => micros[Math.floor(micros.length * share)] as number;
  into.prepares.push({ p50: at(0.5), p99: at(0.99) });
}

/** Chunks of the layers below a root, as its own tables list them. */
async function chunksOf(root: string): Promise<ReadersInit['chunks']> {
  const chunks: ReadersInit['chunks'][number][] = [];
  for (const name of await readdir(join(root, 'blobs'))) {
    const table = decodeChunkTable(decodeSealed('table', await readFile(join(root, 'blobs', name, 'table'))));
    for (let row = 0; row < table.count; row += 1) {
      const { digest, length } = table.row(row);
      if (length > 64 * 1024) chunks.push({ digest, length });
    }
  }
  return chunks;
}

/** Starts the neighbours, gives their rates second by second, and ends them. */
async function neighbours(init: ReadersInit): Promise<{ rates: number[]; stop(): Promise<void> }> {
  const file = join(init.folder, 'readers.json');
  await writeFile(file, JSON.stringify(init));
  // Elsewhere they would have processors of their own: here they take what nobody else wants.
  const child = spawn('chrt', ['--idle', '0', process.execPath, NEIGHBOURS, file], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const rates: number[] = [];
  const lines = createInterface({ input: child.stdout });
  await once(lines, 'line');
  lines.on('line', (line) => rates.push(Number(line)));
  // Connections are made, code is compiled.
  await sleep(3_000);
  rates.length = 0;
  return {
    rates,
    async stop() {
      child.stdin.end();
      if (child.exitCode === null) await once(child, 'exit');
    },
  };
}

try {
  const registry = await startRegistry({ workDir: join(folder.dir, 'r'), storage: image.storage });
  const [port, dataPort] = [await freePort(), await freePort()];
  const keyFile = join(folder.dir, 'swarm.key');
  await writeFile(keyFile, generateSwarmKey(), { mode: 0o600 });
  const config = `[registry."${registry.host}"]\nplain_http = true\nallow_private = true
[swarm]\nlisten = "127.0.0.1:${port}"\ndata_port = ${dataPort}\nkey_file = "${keyFile}"
upload_bytes_per_second = ${values.rate}\n`;
  const shoal = await startShoal({
    dir: join(folder.dir, 's'),
    config,
    readyMs: 180_000,
    ...(program === undefined ? {} : { program }),
  });
  const mnt = join(folder.dir, 'mnt');
  await mkdir(mnt);
  await shoal.post('/v1/mounts', { reference: `${registry.host}/${image.estargz}`, directory: mnt });
  const big = join(mnt, 'big');
  await run('dd', [`if=${big}`, 'of=/dev/null', 'bs=1M'], { timeoutMs: 600_000 });
  const client = connectSnapshots(shoal.socket);
  const chunks = await chunksOf(shoal.root);
  const init = { folder: folder.dir, keyFile, port, readers: READERS, inFlight: 4, chunks };
  const idle: Times = { reads: [], prepares: [] };
  const serving: Times = { reads: [], prepares: [] };
  const rates: number[] = [];
  console.log('measuring');
  await measure(big, client, 'warm-up', { reads: [], prepares: [] });
  for (let round = 0; round < ROUNDS; round += 1) {
    await measure(big, client, `idle${round}`, idle);
    const them = await neighbours(init);
    await measure(big, client, `serving${round}`, serving);
    rates.push(...them.rates);
    console.log(`round ${round + 1} of ${ROUNDS}`);
    await them.stop();
  }
  client.close();
  const mean = rates.reduce((sum, rate) => sum + rate, 0) / rates.length;
  console.log(`${READERS} neighbours got ${mean.toFixed(0)} MiB/s together; medians of ${ROUNDS} rounds each`);
  for (const kind of ['reads', 'prepares'] as const) {
    for (const share of ['p50', 'p99'] as const) {
      const [a, b] = [serving, idle].map((times) => median(times[kind].map((each) => each[share])) / 1_000);
      const ratio = (a as number) / (b as number);
      console.log(
        `${kind === 'reads' ? '4 KiB read' : 'Prepare'} ${share}: serving ${a?.toFixed(3)} ms, idle ${b?.toFixed(3)} ms, ratio ${ratio.toFixed(2)}`,
      );
    }
  }
  await shoal.stop();
  await registry.stop();
} finally {
  await folder.close();
}
