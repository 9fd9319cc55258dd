import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { NODE_PROGRAMS, whyNot } from '../e2e/node-lab.ts';
import type { LabContainerd } from '../lab/containerd.ts';
import { run, waitFor } from '../lab/process.ts';
import { type LabShoal, startShoal } from '../lab/shoal.ts';
import { checkSums, type FaultLab, startLabContainerd, withFaultLab } from './daemon-lab.ts';

const skip = await whyNot(...NODE_PROGRAMS);
const SNAPSHOTS = 50;
const FAST = 256 * 1024 * 1024;
const HELLO = ['python3', '/srv/app/hello.py'];
/** Files that saying hello does not read. */
const COLD = ['/usr/bin/perl', '/usr/bin/localedef'];

describe('a daemon started with the registry gone', { skip, timeout: 240_000 }, () => {
  for (const trap of ['fanotify', 'fuse']) {
    it(`serves what is there, answers the rest with an error, and recovers with the registry (${trap})`, async () => {
      await withFaultLab({ bytesPerSecond: FAST }, (lab) => offline(lab, `[trap]\nkind = "${trap}"\n`));
    });
  }

  it('gives up a cold read at the deadline when the registry is silent, and tells the truth later', async () => {
    await withFaultLab({ bytesPerSecond: FAST }, async (lab) => {
      const shoal = await lab.start({ config: '[trap]\nfault_deadline_ms = 1000\n' });
      const mountpoint = await lab.mount('image');
      lab.proxy.setSilent(true);
      const startedAt = performance.now();
      const { status } = await run('sha256sum', [`${mountpoint}${COLD[0]}`], { allowFailure: true, timeoutMs: 30_000 });
      const tookMs = performance.now() - startedAt;
      assert.equal(status, 1);
      assert.ok(tookMs > 900 && tookMs < 5_000, `${Math.round(tookMs)} ms`);
      lab.proxy.setSilent(false);
      await rightSum(lab, mountpoint);
      assert.equal((await lab.shoal('umount', mountpoint)).status, 0);
      assert.equal(await shoal.stop(), 0);
    });
  });
});

async function offline(lab: FaultLab, config: string): Promise<void> {
  let shoal = await lab.start({ config });
  const containerd = await startLabContainerd(lab, shoal, lab.registry.host);
  try {
    await containerd.criPull(lab.directImage);
    await printsHello(lab, containerd, 'before');
    const parent = await topSnapshot(containerd);
    for (let at = 0; at < SNAPSHOTS; at += 1) await snapshots(containerd, 'prepare', `many-${at}`, parent);
    let empty: LabShoal | undefined;
    const emptyMs = await timed(async () => {
      empty = await startShoal({ dir: `${lab.dir}/empty` });
    });
    assert.equal(await empty?.stop(), 0);
    assert.equal(await shoal.stop(), 0);
    await lab.registry.stop();

    const readyMs = await timed(async () => {
      shoal = await lab.start({ config });
    });
    assert.ok(
      readyMs < emptyMs + 3_000,
      `ready after ${Math.round(readyMs)} ms; with an empty root ${Math.round(emptyMs)}`,
    );
    const listed = await waitFor('containerd to connect again', async () => {
      const { status, stdout } = await snapshots(containerd, 'ls');
      return status === 0 && stdout;
    });
    assert.equal(listed.match(/^many-/gm)?.length, SNAPSHOTS);
    await printsHello(lab, containerd, 'offline');
    await printsNothingCold(lab, containerd);

    await lab.restartRegistry();
    // Pages that the kernel began to read while it was away may still fail, for whoever waits for them.
    let tries = 0;
    const sums = await waitFor('reads to be answered again', async () => {
      tries += 1;
      const id = lab.containerId(`again-${tries}`);
      const { status, stdout } = await containerd.runContainer(lab.directImage, id, ['sha256sum', ...COLD]);
      return status === 0 && stdout;
    });
    assert.ok(tries <= 3, `${tries} tries`);
    assert.deepEqual(await checkSums(lab.content, sums), { lines: COLD.length, wrong: [] });
    for (let at = 0; at < SNAPSHOTS; at += 1) await snapshots(containerd, 'rm', `many-${at}`);
    await containerd.criRemove(lab.directImage);
    assert.equal(await shoal.stop(), 0);
  } finally {
    await containerd.stop();
  }
}

/** With the limits as they are by default: the tries and their waits end well before any deadline of people. */
async function printsNothingCold(lab: FaultLab, containerd: LabContainerd): Promise<void> {
  const startedAt = performance.now();
  const { status, stdout, stderr } = await containerd.runContainer(lab.directImage, lab.containerId('cold'), [
    'sha256sum',
    ...COLD,
  ]);
  const tookMs = performance.now() - startedAt;
  assert.notEqual(status, 0);
  assert.equal(stdout.trim(), '');
  assert.match(stderr, /input\/output error/i);
  assert.ok(tookMs < 30_000, `${Math.round(tookMs)} ms`);
}

async function printsHello(lab: FaultLab, containerd: LabContainerd, id: string): Promise<void> {
  const { status, stdout, stderr } = await containerd.runContainer(lab.directImage, lab.containerId(id), HELLO);
  assert.equal(status, 0, stderr);
  assert.equal(stdout.trim(), '{"hello": "shoal", "python": 3}');
}

async function rightSum(lab: FaultLab, mountpoint: string): Promise<void> {
  const { stdout } = await run('sha256sum', [COLD[0]?.slice(1) as string], { cwd: mountpoint });
  assert.deepEqual(await checkSums(lab.content, stdout), { lines: 1, wrong: [] });
}

function snapshots(containerd: LabContainerd, ...args: string[]) {
  return containerd.ctr(['snapshots', '--snapshotter', containerd.snapshotter, ...args], { allowFailure: true });
}

/** The committed snapshot that no other has as its parent. */
async function topSnapshot(containerd: LabContainerd): Promise<string> {
  const { stdout } = await snapshots(containerd, 'ls');
  const rows = stdout
    .trim()
    .split('\n')
    .slice(1)
    .map((line) => line.trim().split(/\s+/));
  const parents = new Set(rows.map((row) => (row.length > 2 ? row[1] : '')));
  const top = rows.find((row) => row.at(-1) === 'Committed' && !parents.has(row[0]));
  assert.ok(top?.[0] !== undefined, stdout);
  return top[0];
}

async function timed(work: () => Promise<void>): Promise<number> {
  const startedAt = performance.now();
  await work();
  return performance.now() - startedAt;
}
