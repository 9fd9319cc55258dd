import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { DIRECTORY_LIMITS, DATA_LIMITS as MODELLED } from '../../sim/policies/shoal/transport-limits.ts';
import { DATA_LIMITS } from '../../src/source/peer/data/limits.ts';
import { SWARM_LIMITS } from '../../src/source/peer/limits.ts';

test('the modelled chunk protocol has the numbers of the real one', () => {
  for (const [key, value] of Object.entries(MODELLED)) {
    assert.equal(DATA_LIMITS[key as keyof typeof DATA_LIMITS], value, key);
  }
});

test('the modelled directory has the numbers of the real one', () => {
  for (const key of ['providersPerKey', 'announceDelayMs', 'haveTimeoutMs'] as const) {
    assert.equal(DIRECTORY_LIMITS[key], SWARM_LIMITS[key], key);
  }
  const constants = { ASKED_BEYOND: 'askedBeyond', ASKED_MAX: 'askedMax', COORDINATORS: 'coordinators' } as const;
  const sources = ['finder', 'claims'].map((file) => readFileSync(`src/source/peer/${file}.ts`, 'utf8')).join('\n');
  for (const [name, key] of Object.entries(constants)) {
    const found = new RegExp(`const ${name} = (\\d+);`).exec(sources)?.[1];
    assert.equal(Number(found), DIRECTORY_LIMITS[key], name);
  }
});
