/**
 * Neighbours that read from one node as fast as it gives: `node chunk-readers.ts <json>`, a process of its own. They join
 * its swarm, print a line when they have, and the MiB they got, each second's, until their standard input ends.
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '../../../src/clock.ts';
import type { Digest } from '../../../src/core/digest.ts';
import { hasCode } from '../../../src/errors.ts';
import { silentLogger } from '../../../src/log.ts';
import { createChunkClient } from '../../../src/source/peer/data/chunk-client.ts';
import { makeTlsIdentity } from '../../../src/source/peer/data/identity.ts';
import { startSwarm } from '../../../src/source/peer/swarm.ts';
import { parseSwarmKey } from '../../../src/source/peer/swarm-key.ts';

/** What the readers are told. */
export interface ReadersInit {
  readonly folder: string;
  readonly keyFile: string;
  readonly port: number;
  readonly readers: number;
  /** Requests that each has under way. */
  readonly inFlight: number;
  readonly chunks: readonly { readonly digest: Digest; readonly length: number }[];
}

const MIB = 1024 * 1024;
const init = JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8')) as ReadersInit;
const key = parseSwarmKey(readFileSync(init.keyFile, 'utf8'), init.keyFile);
const stopping = new AbortController();
let bytes = 0;

async function reader(index: number): Promise<void> {
  const identity = makeTlsIdentity();
  const held = { haveMap: () => undefined, async *all() {} };
  const swarm = await startSwarm(
    { held, clock: systemClock, log: silentLogger },
    {
      root: join(init.folder, `reader-${index}`),
      key,
      listen: { host: '127.0.0.1', port: 0 },
      address: '127.0.0.1',
      dataPort: 1,
      fingerprint: identity.fingerprint,
      zone: '',
      bootstrap: [{ host: '127.0.0.1', port: init.port, id: undefined }],
      replication: 3,
      connectionsMax: 64,
      recordsMax: 10_000,
      memoryBytesMax: 4 * 1024 ** 3,
    },
  );
  await swarm.joined;
  const client = createChunkClient({ identity });
  const holder = (): ReturnType<typeof swarm.peers>[number] | undefined =>
    swarm.peers().find(({ dataPort }) => dataPort !== 1);
  while (holder() === undefined) await sleep(50);
  const run = async (from: number): Promise<void> => {
    for (let at = from; !stopping.signal.aborted; at += 1) {
      const ref = init.chunks[at % init.chunks.length];
      const neighbour = holder();
      if (ref === undefined || neighbour === undefined) return;
      try {
        await client.fetch(neighbour, ref, { signal: stopping.signal, urgency: 'demand' });
        bytes += ref.length;
      } catch (error) {
        if (stopping.signal.aborted) return;
        // Busy: it says when to come back.
        await sleep(hasCode(error, 'UNAVAILABLE') ? 100 : 500);
      }
    }
  };
  const share = Math.floor(init.chunks.length / init.readers);
  running.push(...Array.from({ length: init.inFlight }, (_, lane) => run(index * share + lane * 7)));
  closing.push(async () => {
    await client.close();
    await swarm.stop();
  });
}

const running: Promise<void>[] = [];
const closing: (() => Promise<void>)[] = [];
for (let index = 0; index < init.readers; index += 1) await reader(index);
console.log('reading');
const timer = setInterval(() => {
  console.log((bytes / MIB).toFixed(1));
  bytes = 0;
}, 1_000);
process.stdin.resume();
await once(process.stdin, 'end');
clearInterval(timer);
stopping.abort();
await Promise.allSettled(running);
await Promise.all(closing.map((close) => close()));
process.exit(0);
