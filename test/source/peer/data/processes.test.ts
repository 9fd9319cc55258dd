import assert from 'node:assert/strict';
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { systemClock } from '../../../../src/clock.ts';
import type { Neighbour } from '../../../../src/source/peer/directory.ts';
import {
  createMemoryDirectory,
  createMemoryHub,
  type MemoryHub,
} from '../../../../src/source/peer/memory-directory.ts';
import { holderContents } from '../../../bench/support/holder-contents.ts';
import { testBlob } from '../../../store/blob-fixture.ts';
import { CountingSource, wrongRows } from '../../../store/store-fixture.ts';
import { startMember } from './member.ts';

const HOLDER = fileURLToPath(new URL('../../../bench/support/chunk-holder.ts', import.meta.url));
const CHUNKS = 24;

interface Holder extends AsyncDisposable {
  readonly child: ChildProcessByStdio<Writable, Readable, null>;
}

/** A process that holds every chunk, made a member of the hub. */
async function startHolder(hub: MemoryHub, dir: string, fingerprint: string): Promise<Holder> {
  const child = spawn(process.execPath, [HOLDER, dir, `${CHUNKS}`, fingerprint], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
  const { neighbour } = JSON.parse(line) as { neighbour: Neighbour };
  const map = { rows: CHUNKS, bits: new Uint8Array(CHUNKS / 8).fill(0xff) };
  const self = { ...neighbour, id: `holder-${child.pid}` };
  createMemoryDirectory({ hub, held: { haveMap: () => map, async *all() {} } }, { self });
  return {
    child,
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill('SIGKILL');
      await once(child, 'exit');
    },
  };
}

test('reads go on while one neighbour is frozen and another is killed, each a process of its own', {
  timeout: 120_000,
}, async () => {
  const signal = AbortSignal.timeout(100_000);
  const dir = await mkdtemp(join(tmpdir(), 'shoal-holders-'));
  await using stack = new AsyncDisposableStack();
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  const hub = createMemoryHub({ clock: systemClock });
  const blob = testBlob(holderContents(CHUNKS));
  const outside = await CountingSource.of(blob);
  const reader = stack.use(await startMember(hub, { outside, readahead: false }));
  const holders: Holder[] = [];
  for (const name of ['frozen', 'killed', 'well']) {
    holders.push(stack.use(await startHolder(hub, join(dir, name), reader.identity.fingerprint)));
  }
  const [frozen, killed] = holders as [Holder, Holder, Holder];
  const device = await reader.open(blob);
  const read = async (row: number): Promise<number> => {
    const started = performance.now();
    await device.fill(device.table.row(row).deviceOffset, 4096, { signal });
    return performance.now() - started;
  };
  for (let row = 0; row < 8; row += 1) await read(row);
  assert.equal(reader.counters.neighbour.chunks, 8);

  frozen.child.kill('SIGSTOP');
  const whileFrozen: number[] = [];
  for (let row = 8; row < 16; row += 1) whileFrozen.push(await read(row));
  frozen.child.kill('SIGCONT');

  // In the middle of its transfers.
  const reads = Array.from({ length: 8 }, (_, index) => read(16 + index));
  killed.child.kill('SIGKILL');
  await Promise.all(reads);

  assert.deepEqual(await wrongRows(device), []);
  assert.ok(reader.counters.neighbour.chunks >= CHUNKS - 4, `${reader.counters.neighbour.chunks} from neighbours`);
  // F10: a hedge delay (at most 500 ms) and 500 ms, with room for a machine that runs many tests.
  assert.ok(Math.max(...whileFrozen) < 3_000, `${whileFrozen.map(Math.round)}`);
});
