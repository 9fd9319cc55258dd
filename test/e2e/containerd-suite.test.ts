import { dirname } from 'node:path';
import { test } from 'node:test';
import { startShoal } from '../lab/shoal.ts';
import { connectSnapshots } from '../snapshot/client.ts';
import { type DaemonFactory, snapshotterSuite } from '../suites/snapshotter-suite.ts';
import { whyNot } from './node-lab.ts';

/** `shoal serve` as users start it, one for each case. */
const serve: DaemonFactory = async ({ socket }) => {
  const shoal = await startShoal({ dir: dirname(socket), readyMs: 30_000 });
  const client = connectSnapshots(socket);
  return {
    client,
    async close() {
      client.close();
      const code = await shoal.stop();
      if (code !== 0) throw new Error(`shoal ended with ${code}`);
    },
  };
};

const skip = await whyNot();
if (skip === false) snapshotterSuite('the shoal serve', serve);
else test("containerd's snapshotter suite", { skip }, () => {});
