import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UPLOAD_LIMITS } from '../../../src/core/policy/upload-limits.ts';
import { createUploadQueue, type Upload } from '../../../src/core/policy/upload-queue.ts';

test('a node that is busy refuses those who came by themselves, and takes those a claim directed to it', () => {
  const queue = createUploadQueue<Upload>({ bytesPerSecond: 0 });
  const upload = (directed: boolean): Upload => ({ peer: 'a', bytes: 1, urgency: 'demand', directed });
  for (let count = 0; count < UPLOAD_LIMITS.undirected; count += 1)
    assert.equal(queue.add(upload(false), 0), undefined);
  assert.equal(queue.add(upload(false), 0), UPLOAD_LIMITS.undirectedRetryMs);
  assert.equal(queue.add(upload(true), 0), undefined);
});
