import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { type ByteBudget, type Claim, createByteBudget } from '../../src/core/byte-budget.ts';

const { signal } = new AbortController();

test('pieces run at once while they fit, the rest in the order asked', async () => {
  const { budget, piece, running, end } = pieces(10);
  for (const [name, bytes] of [
    ['a', 4],
    ['b', 6],
    ['c', 5],
    ['d', 1],
  ] as const)
    piece(name, bytes);
  await turn();
  assert.deepEqual(running(), ['a', 'b']);
  end('a');
  await turn();
  assert.deepEqual(running(), ['b'], 'd would fit, but c was there before it');
  end('b');
  await turn();
  assert.deepEqual(running(), ['c', 'd']);
  assert.equal(budget.taken, 6);
});

test('a piece larger than the budget goes alone', async () => {
  const { piece, running, end } = pieces(10);
  piece('small', 1);
  piece('large', 50);
  piece('next', 1);
  await turn();
  assert.deepEqual(running(), ['small']);
  end('small');
  await turn();
  assert.deepEqual(running(), ['large']);
  end('large');
  await turn();
  assert.deepEqual(running(), ['next']);
});

test('urgent pieces go before others that came earlier, and have a part of the budget for themselves', async () => {
  const { piece, running, end } = pieces(10, { keptForUrgent: 4 });
  piece('first', 6, { urgent: false });
  piece('second', 1, { urgent: false });
  piece('urgent', 4);
  await turn();
  assert.deepEqual(running(), ['first', 'urgent']);
  piece('more', 5);
  end('first');
  await turn();
  assert.deepEqual(running(), ['urgent', 'more']);
  end('urgent');
  await turn();
  assert.deepEqual(running(), ['more', 'second']);
});

test('who gives up leaves the queue, and those behind it need not wait for its room', async () => {
  const { budget, piece, running, end } = pieces(10);
  const reader = new AbortController();
  piece('a', 8);
  const given = piece('b', 9, { signal: reader.signal });
  piece('c', 2);
  await turn();
  assert.deepEqual(running(), ['a']);
  reader.abort(new Error('enough'));
  await assert.rejects(given, /enough/);
  assert.deepEqual(running(), ['a', 'c']);
  await assert.rejects(piece('d', 1, { signal: reader.signal }), /enough/);
  end('a');
  end('c');
  await turn();
  assert.equal(budget.taken, 0);
});

test('a piece that fails gives its bytes back', async () => {
  const budget = createByteBudget(1);
  await assert.rejects(
    budget.use(1, { signal }, () => Promise.reject(new Error('no'))),
    /no/,
  );
  assert.equal(budget.taken, 0);
});

test('claims that want more take turns', () => {
  const budget = createByteBudget(1);
  const order: string[] = [];
  const claims = ['a', 'b', 'c'].map(
    (name): Claim => ({
      urgent: true,
      start(room) {
        if (room < 1) return undefined;
        order.push(name);
        return 1;
      },
    }),
  );
  for (const claim of claims) budget.ask(claim);
  for (let round = 0; round < 5; round += 1) {
    const last = claims.find((_, index) => 'abc'[index] === order.at(-1)) as Claim;
    budget.ask(last);
    budget.giveBack(1);
  }
  assert.equal(order.join(''), 'abcabc');
});

test('whatever is asked for and given up, the budget holds, every piece ends and all bytes come back', async () => {
  const pieceOf = fc.record({
    bytes: fc.integer({ min: 1, max: 15 }),
    urgent: fc.boolean(),
    abortAfter: fc.option(fc.nat(8)),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(pieceOf, { maxLength: 40 }), fc.nat(10), async (asked, keptForUrgent) => {
      const budget = createByteBudget(10, { keptForUrgent });
      const results = await Promise.allSettled(
        asked.map(({ bytes, urgent, abortAfter }) => {
          const reader = new AbortController();
          if (abortAfter !== null) void abortIn(abortAfter, reader);
          return budget.use(bytes, { signal: reader.signal, urgent }, async () => {
            assert.ok(budget.taken <= 10 || budget.taken === bytes, `${budget.taken}`);
            await turn();
          });
        }),
      );
      for (const each of results) if (each.status === 'rejected') assert.equal(each.reason.message, 'enough');
      assert.equal(budget.taken, 0);
    }),
    { numRuns: 50 },
  );
});

async function abortIn(turns: number, reader: AbortController): Promise<void> {
  for (let left = turns; left > 0; left -= 1) await turn();
  reader.abort(new Error('enough'));
}

function pieces(
  most: number,
  init: Parameters<typeof createByteBudget>[1] = {},
): {
  budget: ByteBudget;
  piece: (name: string, bytes: number, options?: { signal?: AbortSignal; urgent?: boolean }) => Promise<void>;
  running: () => string[];
  end: (name: string) => void;
} {
  const budget = createByteBudget(most, init);
  const ends = new Map<string, () => void>();
  return {
    budget,
    piece: (name, bytes, options = {}) =>
      budget.use(bytes, { signal, ...options }, async () => {
        await new Promise<void>((resolve) => ends.set(name, resolve));
        ends.delete(name);
      }),
    running: () => [...ends.keys()],
    end: (name) => ends.get(name)?.(),
  };
}
