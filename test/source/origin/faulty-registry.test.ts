import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { sha256 } from '../../../src/core/digest.ts';
import { type ErrorCode, hasCode } from '../../../src/errors.ts';
import { hostPlatform } from '../../../src/image/platform.ts';
import { fetchImage } from '../../../src/source/origin/fetch-image.ts';
import { imageAt, soon, testClient } from './setup.ts';

const MAIN = fileURLToPath(new URL('../../fakes/registry-main.ts', import.meta.url));
const LAYOUT = fileURLToPath(new URL('../../fixtures/small/oci-estargz', import.meta.url));
const LENGTH = 4096;

/** The registry double as a process of its own, told over HTTP what to do wrong. */
async function startRegistry() {
  const child = spawn(process.execPath, [MAIN, LAYOUT, 'team/app', '1'], { stdio: ['pipe', 'pipe', 'inherit'] });
  const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
  const { host, control } = JSON.parse(line) as { host: string; control: string };
  const ask = (method: string, path: string, body?: object) =>
    fetch(`http://${control}/control/${path}`, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  return {
    host,
    inject: async (fault: object) => assert.equal((await ask('POST', 'faults', fault)).status, 204),
    heal: async () => assert.equal((await ask('DELETE', 'faults')).status, 204),
    ask,
    async [Symbol.asyncDispose]() {
      child.stdin.end();
      await once(child, 'exit');
    },
  };
}

const PASSING: readonly object[] = [
  { status: 500, times: 1 },
  { status: 503, times: 1, headers: { 'retry-after': '0' } },
  { status: 429, times: 1, headers: { 'retry-after': '0' } },
  { delayMs: 200 },
  { reset: true, times: 2 },
  { truncateAt: 100, times: 1 },
  { stallAt: 100, times: 1 },
];
const REFUSED: readonly (readonly [object, ErrorCode])[] = [
  [{ wrongRange: true }, 'RANGE_MISMATCH'],
  [{ headers: { 'content-range': 'bytes 0-4095/*/9' } }, 'RANGE_MISMATCH'],
  [{ ignoreRange: true }, 'REGISTRY_RESPONSE'],
  [{ extraBytes: 1000 }, 'REGISTRY_RESPONSE'],
  [{ headers: { 'content-encoding': 'gzip' } }, 'REGISTRY_RESPONSE'],
  [{ status: 404 }, 'REGISTRY_RESPONSE'],
  [{ status: 403 }, 'AUTH_REFUSED'],
  [{ redirectTo: 'http://169.254.169.254/{path}' }, 'URL_REFUSED'],
  [{ headers: { 'x-large': 'x'.repeat(60_000) } }, 'REGISTRY_RESPONSE'],
];

test('what passes is waited for, what is wrong is refused, and afterwards the registry is believed again', async () => {
  await using registry = await startRegistry();
  await using client = testClient({ init: { stallTimeoutMs: 500 } });
  const where = imageAt(registry.host);
  const image = await fetchImage(client, where, { platform: hostPlatform('x64'), signal: soon() });
  const layer = image.manifest.layers.find(({ size }) => (size ?? 0) > LENGTH);
  assert.ok(layer !== undefined);
  const blob = await client.blob(where, layer, { signal: soon() });
  const read = async () => sha256(await blob.read(0, LENGTH, { signal: soon(20_000) }));
  const right = await read();
  for (const fault of PASSING) {
    await registry.inject({ path: '/blobs/', ...fault });
    assert.equal(await read(), right, JSON.stringify(fault));
    await registry.heal();
  }
  for (const [fault, code] of REFUSED) {
    await registry.inject({ path: '/blobs/', ...fault });
    await assert.rejects(read(), (error) => hasCode(error, code), `${JSON.stringify(fault).slice(0, 80)}: ${code}`);
    await registry.heal();
    assert.equal(await read(), right);
  }
  const requests = (await (await registry.ask('GET', 'requests')).json()) as { path: string }[];
  assert.ok(requests.length > PASSING.length + REFUSED.length);
  assert.equal((await registry.ask('POST', 'faults', { respond: 'code' })).status, 400);
  assert.equal((await registry.ask('POST', 'faults', { delayMs: 'long' })).status, 400);
  assert.equal((await registry.ask('DELETE', 'tokens')).status, 204);
  assert.equal((await registry.ask('GET', 'nothing')).status, 404);
});
