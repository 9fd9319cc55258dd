import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ClaimIndex } from '../../../src/core/policy/claim-index.ts';

interface Member {
  readonly peer: { readonly id: string; readonly gone: boolean };
  state: 'held' | 'coming' | 'fetching' | 'lost';
  load: number;
  readonly parent: Member | undefined;
}

const FANOUT = 4;
/** Loads from here on are not told apart. */
const MOST_LOAD = 256;

function member(id: number): Member {
  return { peer: { id: `peer ${id}`, gone: id % 7 === 3 }, state: 'coming', load: 0, parent: undefined };
}

interface Asked {
  readonly own: Member | undefined;
  readonly root: Member | undefined;
  readonly before: number;
}

/** What the index answers, found by looking at everybody. */
function byLooking(members: readonly Member[], count: number, { own, root, before }: Asked): Member[] {
  const rank = ({ state, load }: Member): number => {
    if (load < FANOUT) return state === 'held' ? load : 100;
    return 1_000 + 2 * Math.min(load, MOST_LOAD) + (state === 'held' ? 0 : 1);
  };
  const willing = members.filter((each) => !each.peer.gone && each !== own);
  const holding = willing.filter((each) => each.state === 'held' && each !== own?.parent);
  const getting = willing.filter(
    (each) => each === root || (each.state === 'coming' && members.indexOf(each) < before),
  );
  const isAlive = holding.length > 0 || (root !== undefined && root !== own && !root.peer.gone);
  const all = [...holding, ...getting].toSorted((a, b) => rank(a) - rank(b) || members.indexOf(a) - members.indexOf(b));
  const best = all.slice(0, count);
  return isAlive ? best : [];
}

test('the index of a crowd names the holders that looking at everybody would', () => {
  const state = fc.constantFrom<Member['state']>('held', 'coming', 'lost');
  const change = fc.record({ at: fc.nat(299), load: fc.oneof(fc.nat(9), fc.integer({ min: 250, max: 260 })), state });
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 300 }),
      fc.array(change, { maxLength: 200 }),
      fc.nat(),
      (size, changes, rootAt) => {
        const members = Array.from({ length: Math.ceil(size / 2) }, (_, id) => member(id));
        const index = new ClaimIndex(members, FANOUT);
        while (members.length < size) {
          members.push(member(members.length));
          index.added(members.length - 1);
        }
        for (const { at, load, state } of changes) {
          const each = members[at % size] as Member;
          each.load = load;
          each.state = state;
          index.changed(at % size);
        }
        const fetching = members[rootAt % size] as Member;
        fetching.state = 'fetching';
        index.changed(rootAt % size);
        for (const own of [undefined, members[0], members[size - 1]]) {
          for (const before of [0, size >> 1, size]) {
            const asked = { own, root: fetching, before };
            const found = index.holders(3, asked);
            // It may give up although nobody with such a load could be asked.
            if (found !== undefined) assert.deepEqual(found, byLooking(members, 3, asked));
            else assert(members.some(({ load }) => load >= MOST_LOAD));
          }
        }
        for (const [at, { peer }] of members.entries()) assert.equal(index.placeOf(peer.id), at);
        assert.equal(index.placeOf('nobody'), -1);
      },
    ),
  );
});
