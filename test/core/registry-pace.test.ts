import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createRegistryPace, type PacedRequest, type PaceOutcome } from '../../src/core/policy/registry-pace.ts';
import { PACE_LIMITS } from '../../src/core/policy/registry-pace-limits.ts';

const MOST = 8;

function pace(random = () => 0) {
  return createRegistryPace({ most: MOST, random });
}

test('as many requests as are allowed run at a time, half of them prefetch', () => {
  const registry = pace();
  for (let started = 0; started < MOST / 2; started += 1) {
    assert.equal(registry.waitMs(0, 'prefetch'), 0);
    registry.start('prefetch');
  }
  assert.equal(registry.waitMs(0, 'prefetch'), undefined);
  const demands: PacedRequest[] = [];
  for (let started = 0; started < MOST / 2; started += 1) {
    assert.equal(registry.waitMs(0, 'demand'), 0);
    demands.push(registry.start('demand'));
  }
  assert.equal(registry.waitMs(0, 'demand'), undefined);
  registry.end(demands[0] as PacedRequest, 1, 'answered');
  assert.equal(registry.waitMs(1, 'demand'), 0);
  assert.equal(registry.waitMs(1, 'prefetch'), undefined);
});

test('a registry that says for how long it wants to be left alone is left alone, by all, and then probed by one', () => {
  const registry = pace();
  const burst = Array.from({ length: MOST }, () => registry.start('demand'));
  for (const request of burst) registry.end(request, 1_000, 'throttled', 3_000);
  assert.equal(registry.waitMs(1_000, 'demand'), 3_000);
  assert.equal(registry.waitMs(3_999, 'prefetch'), 1);
  assert.equal(registry.waitMs(4_000, 'demand'), 0);
  const probe = registry.start('demand');
  assert.equal(probe.isProbe, true);
  assert.equal(registry.waitMs(4_000, 'demand'), undefined, 'one at a time');
  registry.end(probe, 4_100, 'answered');
  let started = 0;
  while (registry.waitMs(4_100, 'demand') === 0) {
    registry.start('demand');
    started += 1;
  }
  assert.equal(started, MOST / 2, 'a burst of refusals halves the pace once');
});

test('without a word for how long, rests double, and one answer makes them short again', () => {
  const registry = pace();
  const rests: number[] = [];
  let nowMs = 0;
  for (let round = 0; round < 8; round += 1) {
    registry.end(registry.start('demand'), nowMs, 'throttled');
    rests.push(registry.waitMs(nowMs, 'demand') as number);
    nowMs += rests.at(-1) as number;
  }
  assert.deepEqual(rests, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
  registry.end(registry.start('demand'), nowMs, 'answered');
  registry.end(registry.start('demand'), nowMs, 'throttled');
  assert.equal(registry.waitMs(nowMs, 'demand'), 1_000);
});

test('nobody is believed who wants to be left alone for a day, and rests are spread', () => {
  const registry = pace(() => 0.5);
  registry.end(registry.start('demand'), 0, 'throttled', 86_400_000);
  assert.equal(registry.waitMs(0, 'demand'), PACE_LIMITS.longestAskedMs * (1 + PACE_LIMITS.spread / 2));
});

test('two failures are bad luck, three make everybody rest while one probes', () => {
  const registry = pace();
  for (let failure = 0; failure < 2; failure += 1) registry.end(registry.start('demand'), 0, 'away');
  assert.equal(registry.waitMs(0, 'demand'), 0);
  registry.end(registry.start('demand'), 0, 'away');
  assert.equal(registry.waitMs(0, 'demand'), 100);
  const hanging = registry.start('demand');
  const probe = registry.start('demand');
  registry.end(probe, 100, 'away');
  assert.equal(registry.waitMs(100, 'demand'), 200);
  registry.end(hanging, 100, 'unknown');
  assert.equal(registry.waitMs(300, 'demand'), 0);
  registry.end(registry.start('demand'), 300, 'answered');
  for (let started = 0; started < MOST; started += 1) assert.equal(registry.waitMs(300, 'demand'), 0);
});

test('who comes late to an outage tries for what is left of the time, and a little in any case', () => {
  const registry = pace();
  assert.equal(registry.patienceMs(0, 10_000), 10_000);
  for (let nowMs = 0; nowMs <= 12_000; nowMs += 1_000) registry.end(registry.start('demand'), nowMs, 'away');
  assert.equal(registry.patienceMs(4_000, 10_000), 6_000);
  assert.equal(registry.patienceMs(12_000, 10_000), PACE_LIMITS.leastPatienceMs);
  assert.equal(registry.patienceMs(12_001 + PACE_LIMITS.evidenceMs, 10_000), 10_000, 'nothing was heard of it since');
  assert.equal(registry.patienceMs(12_000, 0), 0);
});

test('a client that tries once and goes elsewhere never rests', () => {
  const registry = createRegistryPace({ most: MOST, random: () => 0, rests: false });
  for (const outcome of ['throttled', 'away', 'away', 'away', 'away'] as const) {
    registry.end(registry.start('demand'), 0, outcome, 5_000);
    assert.equal(registry.waitMs(0, 'demand'), 0);
  }
});

test('whatever happens, no more run than allowed, every rest ends, and an answer makes it as fast as ever', () => {
  const step = fc.record({
    kind: fc.constantFrom<'start' | 'end'>('start', 'end'),
    urgency: fc.constantFrom<'demand' | 'prefetch'>('demand', 'prefetch'),
    outcome: fc.constantFrom<PaceOutcome>('answered', 'throttled', 'away', 'unknown'),
    askedMs: fc.option(fc.nat(1_000_000), { nil: undefined }),
    passes: fc.nat(2_000),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const registry = pace(() => 0.99);
      const running: PacedRequest[] = [];
      let nowMs = 0;
      for (const { kind, urgency, outcome, askedMs, passes } of steps) {
        nowMs += passes;
        if (kind === 'start' && registry.waitMs(nowMs, urgency) === 0) running.push(registry.start(urgency));
        const done = kind === 'end' ? running.shift() : undefined;
        if (done !== undefined) registry.end(done, nowMs, outcome, askedMs);
        assert.ok(running.length <= MOST);
        const waitMs = registry.waitMs(nowMs, 'demand');
        assert.ok(waitMs === undefined || waitMs <= PACE_LIMITS.longestAskedMs * (1 + PACE_LIMITS.spread));
        assert.ok(waitMs !== undefined || running.length > 0, 'nobody waits for nothing');
      }
      for (const done of running.splice(0)) registry.end(done, nowMs, 'unknown');
      nowMs += registry.waitMs(nowMs, 'demand') ?? 0;
      for (let round = 0; round < 200; round += 1) registry.end(registry.start('demand'), nowMs, 'answered');
      for (let started = 0; started < MOST; started += 1) {
        assert.equal(registry.waitMs(nowMs, 'demand'), 0);
        registry.start('demand');
      }
    }),
    { numRuns: 500 },
  );
});
