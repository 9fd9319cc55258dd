/**
 * Opens the store of a stopped daemon and hashes every chunk it calls present: `verify-root.ts <root>` prints
 * `{blobs, checked, dropped, presentBytes}`. Bits that lie show as `dropped`.
 */
import { join } from 'node:path';
import { Level } from 'level';
import { systemClock } from '../../src/clock.ts';
import { createLogger } from '../../src/log.ts';
import { openBlobStore } from '../../src/store/blob-store.ts';

const root = process.argv[2] as string;
const db = new Level<string, string>(join(root, 'meta'));
const chunks = db.sublevel<Uint8Array, Uint8Array>('chunks', { keyEncoding: 'view', valueEncoding: 'view' });
const components = { log: createLogger({ level: 'error' }), clock: systemClock };
const blobs = await openBlobStore(components, { root, db: chunks, verifyOnOpen: 'none' });
const signal = AbortSignal.timeout(60_000);
const found = { blobs: 0, checked: 0, dropped: 0, presentBytes: 0 };
for (const blob of await blobs.list()) {
  const device = await blobs.open(blob);
  if (device === undefined) throw new Error(`${blob} does not open`);
  found.presentBytes += device.stats().presentBytes;
  const { checked, dropped } = await device.verifyRange(0, device.size, { signal });
  found.blobs += 1;
  found.checked += checked;
  found.dropped += dropped;
}
await blobs.close();
await db.close();
process.stdout.write(`${JSON.stringify(found)}\n`);
