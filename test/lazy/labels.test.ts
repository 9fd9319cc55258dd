import assert from 'node:assert/strict';
import { test } from 'node:test';
import { layerRequestFrom } from '../../src/lazy/labels.ts';
import { checkedLabels } from '../../src/snapshot/snapshot-info.ts';

const PREFIX = 'containerd.io/snapshot/';
const DIGEST = `sha256:${'0'.repeat(64)}`;
const LABELS = new Map([
  [`${PREFIX}cri.image-ref`, 'reg.example/team/app:1'],
  [`${PREFIX}cri.layer-digest`, DIGEST],
  [`${PREFIX}pullusername`, 'robot'],
  [`${PREFIX}pullsecret`, 'canary'],
  [`${PREFIX}stargz/x`, 'y'],
]);

test('user name and password in labels are a credential, and no annotation of the layer', () => {
  const request = layerRequestFrom(LABELS);
  assert.ok(request?.credential?.kind === 'basic');
  assert.deepEqual([request.credential.username, request.credential.password.reveal()], ['robot', 'canary']);
  assert.equal(request.layer.annotations[`${PREFIX}stargz/x`], 'y');
  assert.ok(!JSON.stringify(request).includes('canary'));
});

test('half a credential is none', () => {
  for (const missing of ['pullusername', 'pullsecret']) {
    const labels = new Map(LABELS);
    labels.delete(PREFIX + missing);
    assert.equal(layerRequestFrom(labels)?.credential, undefined, missing);
  }
});

test('the password is not among the labels a store keeps', () => {
  const kept = checkedLabels(LABELS);
  assert.deepEqual(
    [...LABELS.keys()].filter((key) => !kept.has(key)),
    [`${PREFIX}pullsecret`],
  );
});
