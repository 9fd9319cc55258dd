/**
 * A process that serves chunks to one reader: `node chunk-holder.ts <dir> <chunks> <reader's fingerprint>`. Prints a line
 * of JSON when it listens, and its processor time when its standard input ends.
 */
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from '../../../src/clock.ts';
import { silentLogger } from '../../../src/log.ts';
import { createChunkServer } from '../../../src/source/peer/data/chunk-server.ts';
import { makeTlsIdentity } from '../../../src/source/peer/data/identity.ts';
import { openBlobStore } from '../../../src/store/blob-store.ts';
import { createLocalStore } from '../../../src/store/local-store.ts';
import { createMemoryStore } from '../../../src/store/memory-store.ts';
import { createSharingStore } from '../../../src/store/shared-chunks.ts';
import { MemoryIndexDb, testBlob, verified } from '../../store/blob-fixture.ts';
import { holderContents } from './holder-contents.ts';

const MIB = 1024 * 1024;
const [dir = '', chunks = '64', fingerprint = ''] = process.argv.slice(2);
await mkdir(dir, { recursive: true, mode: 0o700 });
const blob = testBlob(holderContents(Number(chunks)));
for (const [index, bytes] of blob.chunks.entries()) await writeFile(join(dir, `chunk-${index}`), bytes);
const blobs = await openBlobStore({ log: silentLogger, clock: systemClock }, { root: dir, db: new MemoryIndexDb() });
const local = createLocalStore({ blobs });
const cascade = createSharingStore({
  inner: createMemoryStore(await verified(blob)),
  local,
  blobs,
  shareable: () => true,
});
blobs.connect(cascade);
const info = { format: 'bench', size: blob.compressed.length, sources: [] };
const device = await blobs.create(blob.digest, { chunks: blob.table, tree: new Uint8Array(1), info });
await device.fill(0, device.size, { signal: AbortSignal.timeout(60_000) });
await device.flush();

const identity = makeTlsIdentity();
const self = { id: 'holder', address: '127.0.0.1', dataPort: 0, fingerprint: identity.fingerprint, zone: '' };
const reader = { ...self, id: 'reader', fingerprint };
const server = createChunkServer(
  {
    directory: { self, byFingerprint: (shown) => (shown === fingerprint ? reader : undefined) },
    chunks: cascade.shared,
    identity,
    clock: systemClock,
    log: silentLogger,
  },
  { host: '127.0.0.1', port: 0 },
);
const dataPort = await server.start();
const digests = blob.chunks.map((_, row) => device.ref(row).digest);
console.log(JSON.stringify({ neighbour: { ...self, dataPort }, digests, blob: blob.digest }));
const before = process.cpuUsage();
process.stdin.resume();
await once(process.stdin, 'end');
const { user, system } = process.cpuUsage(before);
console.log(JSON.stringify({ cpuSeconds: (user + system) / 1e6, rssMiB: process.memoryUsage.rss() / MIB }));
await server.stop();
await blobs.close();
