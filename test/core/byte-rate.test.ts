import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { backgroundPolicy } from '../../src/core/policy/background.ts';
import { createByteRate } from '../../src/core/policy/byte-rate.ts';

test('a limit lets a burst through and then holds the rate exactly', () => {
  const limit = createByteRate({ bytesPerSecond: 1000, burstBytes: 500 });
  let nowMs = 50_000;
  let bytes = 0;
  const startedMs = nowMs;
  while (nowMs < startedMs + 60_000) {
    nowMs += limit.take(nowMs, 100);
    bytes += 100;
  }
  assert.ok(Math.abs(bytes - 60_500) <= 200, `${bytes} bytes in 60 s at 1000 a second`);
});

test('no limit never waits, and a take larger than the burst goes and is made up for', () => {
  const none = createByteRate({ bytesPerSecond: 0, burstBytes: 0 });
  assert.equal(none.take(0, 1e12), 0);
  const limit = createByteRate({ bytesPerSecond: 1000, burstBytes: 100 });
  assert.equal(limit.take(0, 1100), 0);
  assert.equal(limit.take(0, 1), 1000);
});

const fallback = { enabled: false, bytesPerSecond: 7 };

test('the longest pattern that matches an image decides for it', () => {
  const rules = [
    { pattern: 'docker.io/library/*', enabled: true },
    { pattern: 'docker.io/library/python:*', bytesPerSecond: 5, enabled: true },
    { pattern: 'docker.io/library/python:3.*-slim', enabled: false },
  ];
  const policy = (...images: string[]) => backgroundPolicy(images, { fallback, rules });
  assert.deepEqual(policy('docker.io/other/app:1'), { ...fallback, group: '' });
  assert.deepEqual(policy('docker.io/library/redis:7'), { enabled: true, bytesPerSecond: 7, group: '' });
  const python = { enabled: true, bytesPerSecond: 5, group: 'docker.io/library/python:*' };
  assert.deepEqual(policy('docker.io/library/python:3.12'), python);
  assert.equal(policy('docker.io/library/python:3.12-slim').enabled, false);
  // a layer of two images: one wants it, the faster rate counts
  assert.deepEqual(policy('docker.io/library/python:3.12', 'docker.io/library/python:3.12-slim'), python);
  assert.equal(policy('docker.io/library/python:3.12', 'docker.io/library/redis:7').bytesPerSecond, 7);
  assert.deepEqual(policy(), { ...fallback, group: '' });
});

test('an unlimited rate is the fastest', () => {
  const rules = [
    { pattern: 'a', enabled: true, bytesPerSecond: 0 },
    { pattern: 'b', enabled: true, bytesPerSecond: 9 },
  ];
  assert.equal(backgroundPolicy(['b', 'a'], { fallback, rules }).bytesPerSecond, 0);
});

test('patterns match like a regular expression of stars, in bounded time', () => {
  const letters = fc.constantFrom('a', 'b', '*');
  const pattern = fc.array(letters, { maxLength: 12 }).map((all) => all.join(''));
  const name = fc.array(fc.constantFrom('a', 'b'), { maxLength: 12 }).map((all) => all.join(''));
  fc.assert(
    fc.property(pattern, name, (stars, text) => {
      const rules = [{ pattern: stars, enabled: true }];
      const expected = new RegExp(`^${stars.replaceAll('*', '.*')}$`).test(text);
      assert.equal(backgroundPolicy([text], { fallback, rules }).enabled, expected);
    }),
    { numRuns: 1000 },
  );
  const hostile = [{ pattern: `${'a*'.repeat(2000)}b`, enabled: true }];
  assert.equal(backgroundPolicy(['a'.repeat(5000)], { fallback, rules: hostile }).enabled, false);
});
