import assert from 'node:assert/strict';
import { readdirSync, readlinkSync } from 'node:fs';
import { describe, it } from 'node:test';
import { BLOCK_BYTES } from '../../src/core/block-map.ts';
import { hasCode } from '../../src/errors.ts';
import { run } from '../trap/erofs-lab.ts';
import { compare, dropPageCache, type MakeTrap, reader, TrapLab, until } from '../trap/trap-lab.ts';

const MIB = 1024 * 1024;
const SIZES = [3 * MIB + 5, 70_001, 4096, 1];

/** What every trap must do, checked with real EROFS mounts and readers in other processes; needs root. */
export function trapSuite(kind: string, makeTrap: MakeTrap): void {
  describe(`${kind} trap`, { skip: process.getuid?.() === 0 ? false : 'needs root', timeout: 120_000 }, () => {
    it('gives cold readers every byte as it was', async () => {
      await using lab = await TrapLab.create(makeTrap);
      const lazy = await lab.serve(SIZES);
      for (const index of SIZES.keys()) assert.equal(await compare(lazy, `f${index}`), 0);
      assert.ok(lab.trap.stats().cold > 0);
      assert.equal(lab.trap.stats().denied, 0);
      assert.equal(lab.loop.stats().failed, 0);
    });

    it('makes no fault for ls and stat', async () => {
      await using lab = await TrapLab.create(makeTrap);
      const lazy = await lab.serve(SIZES);
      assert.equal((await run('ls', ['-lR', lazy.mountpoint])).code, 0);
      assert.equal((await run('stat', [lazy.file('f0'), lazy.file('f3')])).code, 0);
      assert.equal(lab.trap.stats().cold, 0);
      assert.equal(lazy.source.fills, 0);
    });

    it('answers reads of what is on disk by itself', async () => {
      await using lab = await TrapLab.create(makeTrap);
      const lazy = await lab.serve(SIZES);
      assert.equal(await compare(lazy, 'f0'), 0);
      const { fills } = lazy.source;
      await dropPageCache();
      assert.equal(await compare(lazy, 'f0'), 0);
      assert.equal(lazy.source.fills, fills);
      assert.ok(lab.trap.stats().warm > 0);
    });

    it('serves random 4 KiB reads', async () => {
      await using lab = await TrapLab.create(makeTrap);
      const lazy = await lab.serve([8 * MIB]);
      assert.deepEqual(await reader('random', lazy.file('f0'), 1, 500, 7), { reads: 500, wrong: 0, errors: 0 });
      assert.ok(!lazy.device.presence.complete);
    });

    it('serves page faults of a mapped file', async () => {
      await using lab = await TrapLab.create(makeTrap);
      const lazy = await lab.serve([2 * MIB + 17]);
      const { wrong, errors } = await reader('mmap', lazy.file('f0'), 1);
      assert.deepEqual({ wrong, errors }, { wrong: 0, errors: 0 });
    });

    it('serves readers that are not root', async () => {
      await using lab = await TrapLab.create(makeTrap);
      const lazy = await lab.serve([100_000]);
      await run('chmod', ['755', `${lazy.mountpoint}/..`]);
      const { code, err } = await run('setpriv', ['--reuid=65534', '--clear-groups', 'cat', lazy.file('f0')]);
      assert.equal(code, 0, err);
    });

    it('serves 64 readers of overlapping ranges', async () => {
      await using lab = await TrapLab.create(makeTrap);
      const lazy = await lab.serve([6 * MIB]);
      lazy.source.delayMs = 3;
      const readers = Array.from({ length: 64 }, () => compare(lazy, 'f0'));
      assert.deepEqual(new Set(await Promise.all(readers)), new Set([0]));
    });

    it('turns a source that fails into EIO, never into zeros, and recovers with it', async () => {
      await using lab = await TrapLab.create(makeTrap);
      const lazy = await lab.serve([300_000]);
      lazy.source.mode = 'broken';
      const failed = await run('cat', [lazy.file('f0')]);
      assert.equal(failed.code, 1);
      assert.match(failed.err, /Input\/output error/);
      assert.equal(failed.out.length, 0);
      assert.ok(lab.trap.stats().denied > 0);
      lazy.source.mode = 'good';
      assert.equal(await compare(lazy, 'f0'), 0);
    });

    it('fails a read whose source never answers, at the deadline', async () => {
      await using lab = await TrapLab.create(makeTrap, { deadlineMs: 300 });
      const lazy = await lab.serve([4096]);
      lazy.source.mode = 'silent';
      const { code, out } = await run('cat', [lazy.file('f0')]);
      assert.equal(code, 1);
      assert.equal(out.length, 0);
    });

    it('denies a read that is called filled while its bytes are missing', async () => {
      await using lab = await TrapLab.create(makeTrap);
      const lazy = await lab.serve([4096]);
      const { setRange } = lazy.device.presence;
      lazy.device.presence.setRange = () => {};
      const { code, out } = await run('cat', [lazy.file('f0')]);
      lazy.device.presence.setRange = setRange;
      assert.deepEqual([code, out.length], [1, 0]);
    });

    it('attaches a device while others are being read', async () => {
      await using lab = await TrapLab.create(makeTrap);
      const first = await lab.serve([6 * MIB]);
      first.source.delayMs = 2;
      const busy = Promise.all(Array.from({ length: 8 }, () => compare(first, 'f0')));
      for (let round = 0; round < 4; round += 1) {
        const next = await lab.serve([200_000]);
        assert.equal(await compare(next, 'f0'), 0);
      }
      assert.deepEqual(new Set(await busy), new Set([0]));
    });

    it('asks nothing any more once a complete device is detached', async () => {
      await using lab = await TrapLab.create(makeTrap);
      const lazy = await lab.serve([1 * MIB]);
      assert.equal(await compare(lazy, 'f0'), 0);
      assert.ok(lazy.device.presence.complete);
      await lab.trap.detach(lazy.device);
      await lab.trap.detach(lazy.device);
      const { cold, denied } = lab.trap.stats();
      await dropPageCache();
      assert.equal(await compare(lazy, 'f0'), 0);
      assert.deepEqual([lab.trap.stats().cold, lab.trap.stats().denied], [cold, denied]);
    });

    it('hands out the data file itself for a device that is complete', async () => {
      await using lab = await TrapLab.create(makeTrap);
      const lazy = await lab.serve([4096]);
      assert.equal(await compare(lazy, 'f0'), 0);
      const other = { ...lazy.device, id: 99, name: 'f'.repeat(64) };
      assert.equal(await lab.trap.attach(other), lazy.device.path);
    });

    it('denies waiting reads when a device is detached before it is complete', async () => {
      await using lab = await TrapLab.create(makeTrap);
      const lazy = await lab.serve([1 * MIB]);
      lazy.source.mode = 'silent';
      const waiting = run('cat', [lazy.file('f0')]);
      await until(() => lab.trap.stats().cold > 0);
      await run('umount', ['-l', lazy.mountpoint]);
      await lab.trap.detach(lazy.device);
      assert.notEqual((await waiting).code, 0);
    });

    it('lets the daemon write through a descriptor opened after attach', async () => {
      await using lab = await TrapLab.create(makeTrap);
      const lazy = await lab.serve([4 * BLOCK_BYTES]);
      const { open } = await import('node:fs/promises');
      const file = await open(lazy.device.path, 'r+');
      await file.write(lazy.image.data, 0, BLOCK_BYTES, 0);
      await file.close();
      assert.equal(await compare(lazy, 'f0'), 0);
    });

    it('frees descriptors, mounts and processes at close', async () => {
      const lab = await TrapLab.create(makeTrap);
      const lazy = await lab.serve([100_000]);
      assert.equal(await compare(lazy, 'f0'), 0);
      await lab.stop();
      await lab.trap.close();
      assert.deepEqual(
        readdirSync(`${lab.directory.path}/run`).filter((name) => name !== 'fuse'),
        [],
      );
      const { out } = await run('cat', ['/proc/self/mounts']);
      assert.ok(!out.toString().includes(lab.directory.path));
      const left = await until(
        () => !descriptors().some((target) => /fanotify|shoal-journal|\/dev\/fuse/.test(target)),
      );
      assert.equal(left, undefined);
      await assert.rejects(lab.trap.attach(lazy.device), (error) => hasCode(error, 'FAILED_PRECONDITION'));
      await lab[Symbol.asyncDispose]();
    });
  });
}

function descriptors(): string[] {
  return readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return '';
    }
  });
}
