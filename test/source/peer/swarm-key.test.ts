import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { hasCode, ShoalError } from '../../../src/errors.ts';
import { parseBootstrap } from '../../../src/source/peer/bootstrap.ts';
import { clientMemoryBytes, serverMemoryBytes } from '../../../src/source/peer/data/limits.ts';
import { loadIdentity } from '../../../src/source/peer/identity.ts';
import { checkBudget, SWARM_LIMITS, worstCaseBytes } from '../../../src/source/peer/limits.ts';
import { generateSwarmKey, loadSwarmKey, parseSwarmKey, writeSwarmKey } from '../../../src/source/peer/swarm-key.ts';

const folder = { path: '' };
before(() => {
  folder.path = mkdtempSync(join(tmpdir(), 'shoal-key-'));
});
after(() => rmSync(folder.path, { recursive: true }));

const refuses = (run: () => unknown, pattern: RegExp): void => {
  assert.throws(run, (error) => {
    assert.ok(hasCode(error, 'CONFIG_INVALID'), String(error));
    assert.match(error.message, pattern);
    return true;
  });
};

test('a generated key has the form libp2p’s pnet reads, and another one each time', async () => {
  const text = generateSwarmKey();
  assert.match(text, /^\/key\/swarm\/psk\/1\.0\.0\/\n\/base16\/\n[0-9a-f]{64}\n$/);
  assert.notEqual(text, generateSwarmKey());
  const { preSharedKey } = await import('@libp2p/pnet');
  assert.ok(preSharedKey({ psk: Buffer.from(text) }));
  assert.equal(Buffer.from(parseSwarmKey(text, 'k').bytes).toString('hex'), text.split('\n')[2]);
});

test('a bad key is refused, and never shown', () => {
  const secret = 'c0ffee'.repeat(12);
  fc.assert(
    fc.property(fc.string({ maxLength: 200 }), (text) => {
      assert.throws(
        () => parseSwarmKey(text, 'k'),
        (error) => hasCode(error, 'CONFIG_INVALID'),
      );
    }),
  );
  for (const text of [
    `/key/swarm/psk/1.0.0/\n/base16/\n${secret}`,
    `/key/swarm/psk/1.0.0/\n/hex/\n${secret.slice(0, 64)}`,
    secret,
  ]) {
    assert.throws(
      () => parseSwarmKey(text, 'k'),
      (error) => error instanceof ShoalError && !error.describe().includes(secret.slice(0, 12)),
    );
  }
});

test('a key file is written once, private, and read only while it is private', () => {
  const path = join(folder.path, 'swarm.key');
  writeSwarmKey(path);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.equal(loadSwarmKey(path).bytes.length, 32);
  refuses(() => writeSwarmKey(path), /exists already/);
  chmodSync(path, 0o640);
  refuses(() => loadSwarmKey(path), /open to others.*chmod 600/);
  refuses(() => loadSwarmKey(join(folder.path, 'none')), /does not exist/);
  refuses(() => loadSwarmKey(folder.path), /no regular file/);
  symlinkSync(path, join(folder.path, 'link'));
  chmodSync(path, 0o600);
  assert.equal(loadSwarmKey(join(folder.path, 'link')).bytes.length, 32, 'Kubernetes mounts secrets as links');
});

test('the identity is made once, kept private, and stays the same', async () => {
  const path = join(folder.path, 'keys', 'peer.key');
  const first = await loadIdentity(path);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.ok((await loadIdentity(path)).equals(first));
  chmodSync(path, 0o644);
  await assert.rejects(loadIdentity(path), (error) => hasCode(error, 'CONFIG_INVALID'));
  const broken = join(folder.path, 'broken.key');
  writeFileSync(broken, 'no key', { mode: 0o600 });
  await assert.rejects(loadIdentity(broken), (error) => hasCode(error, 'STATE_CORRUPT'));
});

test('bootstrap entries name a host and a port in one of three ways', () => {
  assert.deepEqual(parseBootstrap('shoal.example:7946'), { host: 'shoal.example', port: 7946, id: undefined });
  assert.deepEqual(parseBootstrap('[fd00::1]:1'), { host: 'fd00::1', port: 1, id: undefined });
  const id = '12D3KooWGDE8MsufFkvyjUW2545RSURGLsgRYnsDDSo351upR1p5';
  assert.deepEqual(parseBootstrap(`/dns4/a.b/tcp/7946/p2p/${id}`), { host: 'a.b', port: 7946, id });
  for (const text of ['', 'host', 'host:0', 'host:70000', '/ip4/1.2.3.4/udp/1', '/ip4/1.2.3.4/tcp/1/ws', 'a b:1']) {
    refuses(() => parseBootstrap(text), /swarm\.bootstrap/);
  }
});

test('limits that may take more than the budget are refused', () => {
  const usual = { connections: 256, records: SWARM_LIMITS.records };
  assert.ok(worstCaseBytes(usual) < 1.5 * 1024 ** 3, 'the default budget');
  const chunks = serverMemoryBytes() + clientMemoryBytes();
  assert.ok(chunks > 400 * 1024 ** 2 && worstCaseBytes({ connections: 0, records: 0 }) > chunks, 'chunks count too');
  checkBudget({ ...usual, budgetBytes: worstCaseBytes(usual) });
  refuses(() => checkBudget({ ...usual, budgetBytes: worstCaseBytes(usual) - 1 }), /memory_bytes_max/);
});
