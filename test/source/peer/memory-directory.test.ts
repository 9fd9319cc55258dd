import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sha256 } from '../../../src/core/digest.ts';
import type { HeldChunks, Neighbour } from '../../../src/source/peer/directory.ts';
import { createMemoryDirectory, createMemoryHub } from '../../../src/source/peer/memory-directory.ts';
import { fakeHeld, peerDirectorySuite } from '../../suites/peer-directory-suite.ts';

function selfOf(index: number): Neighbour {
  const fingerprint = sha256(`certificate ${index}`).slice('sha256:'.length);
  return { id: `peer-${index}`, address: '127.0.0.1', dataPort: 7000 + index, fingerprint, zone: '' };
}

function join(held: readonly HeldChunks[], clock: { nowMs(): number }) {
  const hub = createMemoryHub({ clock });
  return held.map((one, index) => createMemoryDirectory({ hub, held: one }, { self: selfOf(index) }));
}

peerDirectorySuite('memory directory', async (held) => {
  const members = join(held, { nowMs: () => performance.now() });
  return {
    members,
    async cleanup() {
      for (const member of members) member.close();
    },
  };
});

test('memory directory: a ban ends, and a member that left is gone', () => {
  let nowMs = 0;
  const [first, second, third] = join([fakeHeld(), fakeHeld(), fakeHeld()], { nowMs: () => nowMs });
  first?.ban('peer-1', { reason: 'test', forMs: 1_000 });
  assert.deepEqual(
    [first, second].map((member) => member?.peers().length),
    [1, 1],
    'both ends lose the connection',
  );
  nowMs = 1_000;
  assert.equal(first?.peers().length, 2);
  third?.close();
  third?.close();
  assert.equal(first?.peers().length, 1);
});
