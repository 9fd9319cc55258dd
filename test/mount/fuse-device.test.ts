import assert from 'node:assert/strict';
import { closeSync, existsSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { BlockMap } from '../../src/core/block-map.ts';
import { silentLogger } from '../../src/log.ts';
import { mountErofs } from '../../src/mount/erofs.ts';
import { createFuseTrap, type FuseTrap } from '../../src/trap/fuse/fuse-trap.ts';
import type { TrapDevice } from '../../src/trap/trap.ts';
import { cannotMount, Lab, readElsewhere, writeImage } from './mount-lab.ts';

const noLoop = existsSync('/dev/loop-control') ? false : 'no /dev/loop-control';
const skip = cannotMount('erofs', 'fuse') || (existsSync('/dev/fuse') ? false : 'no /dev/fuse');

for (const backing of ['file', 'loop'] as const) {
  for (const folder of ['fuse', join('l'.repeat(200), 'm'.repeat(200))]) {
    const about = `${backing}, ${folder.length > 255 ? 'long' : 'short'} path`;
    test(`a device on a FUSE mount that this very process serves mounts, reads and unmounts (${about})`, {
      skip: skip || (backing === 'loop' && noLoop),
      timeout: 30_000,
    }, async () => {
      using lab = new Lab();
      const { image, devices, contents } = writeImage(lab.at('image'), 1);
      await using trap = await openTrap(lab.dir(folder));
      const path = devices[0] as string;
      const fd = openSync(path, 'r+');
      const presence = new BlockMap(2);
      const device: TrapDevice = { id: 1, name: 'a'.repeat(64), path, size: 8192, fd, presence };
      try {
        const served = await trap.attach(device);
        assert.ok(served.startsWith(lab.at(folder)));
        // complete from here on: reads are answered without anyone who fills
        presence.setRange(0, 2);
        const mounted = await mountErofs({ image, devices: [served], target: lab.dir('mnt'), backing });
        assert.deepEqual(await readElsewhere(join(mounted.target, 'f0')), contents[0]);
        assert.equal(await mounted.unmount(), 'unmounted');
        assert.equal(mounted.inUse(), false);
        await trap.detach(device);
      } finally {
        closeSync(fd);
      }
    });
  }
}

async function openTrap(directory: string): Promise<FuseTrap & AsyncDisposable> {
  const trap = await createFuseTrap({ log: silentLogger }, { runDir: directory });
  return Object.assign(trap, { [Symbol.asyncDispose]: () => trap.close() });
}
