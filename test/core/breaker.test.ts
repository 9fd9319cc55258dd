import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Admission, createBreaker } from '../../src/core/policy/breaker.ts';

const CHEAP = { grave: false };
const GRAVE = { grave: true };

test('cheap failures in a row open it, a success between them starts the count anew', () => {
  const breaker = createBreaker({ failureLimit: 3 });
  assert.equal(breaker.failed('yes', CHEAP, 0), false);
  assert.equal(breaker.failed('yes', CHEAP, 1), false);
  breaker.succeeded('yes');
  assert.equal(breaker.failed('yes', CHEAP, 2), false);
  assert.equal(breaker.failed('yes', CHEAP, 3), false);
  assert.equal(breaker.failed('yes', CHEAP, 4), true);
  assert.equal(breaker.state(), 'open');
});

test('one grave failure opens it, and each rest is twice the one before, up to 20 s', () => {
  const breaker = createBreaker({ firstRestMs: 5_000 });
  let now = 0;
  const rests: number[] = [];
  let admission: Admission = 'yes';
  for (let round = 0; round < 5; round += 1) {
    assert.equal(breaker.failed(admission, GRAVE, now), true);
    const until = breaker.restUntilMs() as number;
    rests.push(until - now);
    assert.equal(breaker.admit(until - 1), 'no');
    now = until;
    admission = breaker.admit(now);
    assert.equal(admission, 'trial');
    assert.equal(breaker.admit(now), 'no', 'one read tries it, the others do not wait for it');
  }
  assert.deepEqual(rests, [5_000, 10_000, 20_000, 20_000, 20_000]);
  breaker.succeeded('trial');
  assert.equal(breaker.state(), 'closed');
  breaker.failed('yes', GRAVE, now);
  assert.equal((breaker.restUntilMs() as number) - now, 5_000);
});

test('a rest that was asked for is kept to, and not followed by longer ones than it asks for', () => {
  const breaker = createBreaker();
  breaker.failed('yes', { grave: true, restMs: 60_000 }, 0);
  assert.equal(breaker.restUntilMs(), 60_000);
  breaker.checked(true, 30_000);
  assert.equal(breaker.state(), 'open', 'a health check does not shorten it');
  const endless = createBreaker();
  endless.failed('yes', { grave: true, restMs: 1e12 }, 0);
  assert.equal(endless.restUntilMs(), 600_000);
});

test('failures of reads that began before it opened say nothing new', () => {
  const breaker = createBreaker();
  breaker.failed('yes', GRAVE, 0);
  const until = breaker.restUntilMs();
  for (let at = 1; at < 100; at += 1) assert.equal(breaker.failed('yes', GRAVE, at), false);
  assert.equal(breaker.restUntilMs(), until);
  breaker.succeeded('yes');
  assert.equal(breaker.state(), 'open');
});

test('with health checks no read tries a source before a check succeeded', () => {
  const breaker = createBreaker({ checks: true });
  breaker.failed('yes', GRAVE, 0);
  assert.equal(breaker.admit(1e9), 'no');
  breaker.checked(false, 5_000);
  assert.equal(breaker.restUntilMs(), 15_000);
  breaker.checked(true, 15_000);
  assert.equal(breaker.state(), 'half-open');
  assert.equal(breaker.admit(15_000), 'trial');
});

test('a trial that was given up, or never ends, goes to the next read', () => {
  const breaker = createBreaker();
  breaker.failed('yes', GRAVE, 0);
  assert.equal(breaker.admit(5_000), 'trial');
  breaker.abandoned('trial');
  assert.equal(breaker.admit(5_001), 'trial');
  assert.equal(breaker.admit(15_000), 'no');
  assert.equal(breaker.admit(15_001), 'trial');
});

test('whatever happens, a source that is well again is used within 30 s', () => {
  const step = fc.record({ kind: fc.constantFrom('read', 'fail', 'grave', 'check'), afterMs: fc.nat(20_000) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const breaker = createBreaker({ checks: true });
      let now = 0;
      for (const { kind, afterMs } of steps) {
        now += afterMs;
        if (kind === 'check') breaker.checked(false, now);
        else {
          const admission = breaker.admit(now);
          if (admission === 'no') continue;
          if (kind === 'read') breaker.succeeded(admission);
          else breaker.failed(admission, { grave: kind === 'grave' }, now);
        }
      }
      const wellAt = now;
      // Health checks as the daemon does them: one after each rest, 3 s at most each; reads every 100 ms.
      for (; breaker.state() !== 'closed'; now += 100) {
        assert.ok(now - wellAt <= 30_000, `${now - wellAt}`);
        const until = breaker.restUntilMs();
        if (until !== undefined && now >= until + 3_000) breaker.checked(true, now);
        const admission = breaker.admit(now);
        if (admission !== 'no') breaker.succeeded(admission);
      }
    }),
  );
});
