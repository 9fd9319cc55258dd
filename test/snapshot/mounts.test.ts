import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { sha256 } from '../../src/core/digest.ts';
import type { ParentLink } from '../../src/snapshot/metastore.ts';
import { cutRuns, type Lower, mountsOf } from '../../src/snapshot/mounts.ts';

const ROOT = '/var/lib/shoal';
const overlayOptions = ['index=off'];
const plain = (id: number): Lower => ({ kind: 'plain', id });

function mounts(kind: 'active' | 'view', lowers: readonly Lower[]) {
  return mountsOf({ root: ROOT, chain: { id: 9, kind }, lowers, overlayOptions });
}

describe('mounts', () => {
  it('bind the own directory when there is no parent', () => {
    const source = `${ROOT}/snapshots/9/fs`;
    assert.deepEqual(mounts('active', []), [{ type: 'bind', source, target: '', options: ['rw', 'rbind'] }]);
    assert.deepEqual(mounts('view', []), [{ type: 'bind', source, target: '', options: ['ro', 'rbind'] }]);
  });

  it('bind the only lower directory of a view', () => {
    const bound = (source: string) => [{ type: 'bind', source, target: '', options: ['ro', 'rbind'] }];
    assert.deepEqual(mounts('view', [plain(3)]), bound(`${ROOT}/snapshots/3/fs`));
    assert.deepEqual(mounts('view', [{ kind: 'run', path: '/run/3' }]), bound('/run/3'));
  });

  it('overlay everything else, nearest lower first, options at the end', () => {
    const lowers: Lower[] = [plain(3), { kind: 'run', path: `${ROOT}/runs/2` }];
    const lowerdir = `lowerdir=${ROOT}/snapshots/3/fs:${ROOT}/runs/2`;
    assert.deepEqual(mounts('view', lowers), [
      { type: 'overlay', source: 'overlay', target: '', options: [lowerdir, 'index=off'] },
    ]);
    const own = [`workdir=${ROOT}/snapshots/9/work`, `upperdir=${ROOT}/snapshots/9/fs`];
    assert.deepEqual(mounts('active', lowers)[0]?.options, [...own, lowerdir, 'index=off']);
  });
});

describe('runs', () => {
  const blobs = ['a', 'b', 'c'].map((text) => sha256(text));
  const lazy = (id: number): ParentLink => ({ id, lazy: blobs[id - 1] ?? assert.fail() });

  it('join lazy neighbours, bottom to top, under the id of the top one', () => {
    assert.deepEqual(cutRuns([lazy(3), lazy(2), lazy(1)]), [{ kind: 'lazy', id: 3, layers: blobs, bottom: true }]);
  });

  it('end where an unpacked layer lies, above or below', () => {
    assert.deepEqual(cutRuns([{ id: 9 }, lazy(3), { id: 8 }, { id: 7 }, lazy(2), lazy(1)]), [
      { kind: 'plain', id: 9 },
      { kind: 'lazy', id: 3, layers: [blobs[2]], bottom: false },
      { kind: 'plain', id: 8 },
      { kind: 'plain', id: 7 },
      { kind: 'lazy', id: 2, layers: [blobs[0], blobs[1]], bottom: true },
    ]);
    assert.deepEqual(cutRuns([]), []);
  });
});
