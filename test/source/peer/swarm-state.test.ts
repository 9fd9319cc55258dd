import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { placeOfPeer } from '../../../src/source/peer/chunk-key.ts';
import { prefixOf } from '../../../src/source/peer/closest.ts';
import { placementOf } from '../../../src/source/peer/placement.ts';
import { openSwarmState } from '../../../src/source/peer/swarm-state.ts';

const folder = { path: '' };
before(() => {
  folder.path = mkdtempSync(join(tmpdir(), 'shoal-state-'));
});
after(() => rmSync(folder.path, { recursive: true }));

const HOUR = 3_600_000;
const clock = { ms: 1_000 * HOUR };

function open() {
  return openSwarmState({
    folder: join(folder.path, 'swarm'),
    multihashOf: (id) => {
      if (!id.startsWith('peer-')) throw new Error('no peer id');
      return Buffer.from(id);
    },
    wallTimeMs: () => clock.ms,
  });
}

test('peers come back, and lines that make no sense do not', async () => {
  const peers = [
    { id: 'peer-1', host: '10.0.0.1', port: 7946 },
    { id: 'peer-2', host: 'fd00::2', port: 1 },
  ];
  await open().savePeers(peers);
  assert.deepEqual(open().peers(), peers);
  const file = join(folder.path, 'swarm', 'peers.json');
  assert.equal(statSync(file).mode & 0o777, 0o600);
  const odd = [
    null,
    7,
    { id: 'x', host: '10.0.0.1', port: 1 },
    { ...peers[0], host: 'name' },
    { ...peers[0], port: 0 },
  ];
  writeFileSync(file, JSON.stringify([...odd, peers[1]]));
  assert.deepEqual(open().peers(), [peers[1]]);
  for (const text of ['', '{', '{"a":1}', readFileSync(file, 'utf8').slice(0, -3)]) {
    writeFileSync(file, text);
    assert.deepEqual(open().peers(), []);
  }
});

test('where records lie is known after an orderly end within two hours, not after a crash', async () => {
  const place = placeOfPeer(Buffer.from('peer-1'));
  const placement = placementOf([{ id: 'peer-1', instance: '0a', place, prefix: prefixOf(place) }]);
  const { marker } = open();
  assert.equal(marker.read(), undefined);
  await marker.write({ placement, roundMs: clock.ms - HOUR, isComplete: true });
  const known = open().marker.read();
  assert.equal(known?.roundMs, clock.ms - HOUR);
  assert.deepEqual(known?.placement.members, placement.members);
  clock.ms += 3 * HOUR;
  assert.equal(open().marker.read(), undefined, 'others may have let records go');
  clock.ms -= 3 * HOUR;
  await marker.write({ placement, roundMs: clock.ms, isComplete: false });
  assert.equal(open().marker.read(), undefined, 'a daemon that crashed leaves it like that');
});
