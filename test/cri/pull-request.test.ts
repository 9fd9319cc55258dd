import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect } from 'node:util';
import fc from 'fast-check';
import { parsePullRequest } from '../../src/cri/pull-request.ts';
import { wireFields } from '../../src/cri/wire.ts';
import { ShoalError } from '../../src/errors.ts';
import { pullRequest } from './wire-writer.ts';

const base64 = (text: string): string => Buffer.from(text).toString('base64');

function shown(image: string, auth: Parameters<typeof pullRequest>[1]): string | undefined {
  const pull = parsePullRequest(pullRequest(image, auth));
  if (pull === undefined) return undefined;
  const { reference, credential } = pull;
  const secret =
    credential.kind === 'basic'
      ? `${credential.username}:${credential.password.reveal()}`
      : `${credential.kind} ${credential.token.reveal()}`;
  return `${reference.registry}/${reference.repository} ${secret}`;
}

test('the credential of a pull is read as containerd reads it', () => {
  assert.equal(shown('reg.example/a:1', { username: 'u', password: 'p' }), 'reg.example/a u:p');
  assert.equal(shown('nginx', { username: 'u', password: '' }), 'docker.io/library/nginx u:');
  assert.equal(shown('reg.example/a', { auth: base64('u:p:q\0\0') }), 'reg.example/a u:p:q');
  assert.equal(shown('reg.example/a', { identityToken: 't', auth: base64('u:p') }), 'reg.example/a identity-token t');
  assert.equal(shown('reg.example/a', { registryToken: 't' }), 'reg.example/a registry-token t');
  assert.equal(
    shown('reg.example/a', { username: 'u', password: 'p', serverAddress: 'https://reg.example' }),
    'reg.example/a u:p',
  );
  assert.equal(
    shown('nginx', { username: 'u', password: 'p', serverAddress: 'https://index.docker.io/v1/' }),
    'docker.io/library/nginx u:p',
  );
});

test('no credential, or one for another server, is none', () => {
  assert.equal(shown('reg.example/a', undefined), undefined);
  assert.equal(shown('reg.example/a', {}), undefined);
  assert.equal(shown('reg.example/a', { serverAddress: 'https://reg.example' }), undefined);
  assert.equal(
    shown('reg.example/a', { username: 'u', password: 'p', serverAddress: 'https://other.example' }),
    undefined,
  );
});

test('nonsense is refused without showing it', () => {
  for (const message of [
    pullRequest('not an image canary', { username: 'u', password: 'canary' }),
    pullRequest('reg.example/a', { auth: 'canary' }),
    Buffer.from('ff'.repeat(11), 'hex'),
    Buffer.from('0a7f01', 'hex'),
    Buffer.from('0b', 'hex'),
    Buffer.from('00', 'hex'),
  ]) {
    assert.throws(
      () => parsePullRequest(message),
      (error) => error instanceof ShoalError && !inspect({ ...error, cause: undefined }).includes('"canary'),
    );
  }
});

test('no bytes make the parsers throw anything but a ShoalError, and fields are never longer than the message', () => {
  const message = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc
      .tuple(fc.string(), fc.string(), fc.uint8Array({ maxLength: 30 }), fc.nat(300))
      .map(([image, username, noise, at]) => {
        const bytes = pullRequest(image, { username, password: 'x' });
        bytes.set(noise.subarray(0, Math.max(0, bytes.length - at)), Math.min(at, bytes.length));
        return bytes;
      }),
  );
  fc.assert(
    fc.property(message, (bytes) => {
      try {
        const fields = wireFields(bytes);
        assert.ok(fields.reduce((sum, field) => sum + field.bytes.byteLength, 0) <= bytes.byteLength);
        parsePullRequest(bytes);
      } catch (error) {
        assert.ok(error instanceof ShoalError, String(error));
      }
    }),
    { numRuns: 3000 },
  );
});
