import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { whyNot } from '../e2e/node-lab.ts';
import { killRealDaemon } from './daemon-kill.ts';

const skip = await whyNot('docker-registry');

describe('the daemon killed at random while 64 readers are in cold reads of an image', {
  skip,
  timeout: 240_000,
}, () => {
  it('costs readers a wait and nothing else, and its bits never lie (20 kills)', async () => {
    const { wrong, firstWrong, errors, dropped, ...counts } = await killRealDaemon(20);
    assert.deepEqual({ wrong, firstWrong, errors, dropped }, { wrong: 0, firstWrong: null, errors: {}, dropped: 0 });
    assert.ok(counts.reads > 0 && counts.checked > 0, JSON.stringify(counts));
    assert.ok(counts.recovered > 0, 'no kill found a reader waiting: the test tested nothing');
  });
});
