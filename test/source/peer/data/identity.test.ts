import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { chmod, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { hasCode } from '../../../../src/errors.ts';
import { fingerprintOf, loadTlsIdentity, makeTlsIdentity } from '../../../../src/source/peer/data/identity.ts';

test('a node makes its key once, for its owner only, and keeps it', async () => {
  const root = await mkdtemp(join(tmpdir(), 'shoal-keys-'));
  try {
    const keysDir = join(root, 'keys');
    const made = await loadTlsIdentity({ keysDir });
    assert.deepEqual(await loadTlsIdentity({ keysDir }), made);
    assert.deepEqual(await readdir(keysDir), ['tls.pem']);
    assert.equal((await stat(join(keysDir, 'tls.pem'))).mode & 0o777, 0o600);
    assert.equal((await stat(keysDir)).mode & 0o777, 0o700);
    assert.match(made.fingerprint, /^[0-9a-f]{64}$/);

    await chmod(join(keysDir, 'tls.pem'), 0o644);
    await assert.rejects(loadTlsIdentity({ keysDir }), (error) => hasCode(error, 'CONFIG_INVALID'));
    await chmod(join(keysDir, 'tls.pem'), 0o600);
    await writeFile(join(keysDir, 'tls.pem'), made.key);
    await assert.rejects(loadTlsIdentity({ keysDir }), (error) => hasCode(error, 'STATE_CORRUPT'));
    await writeFile(
      join(keysDir, 'tls.pem'),
      `${made.key}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n`,
    );
    await assert.rejects(loadTlsIdentity({ keysDir }), (error) => hasCode(error, 'STATE_CORRUPT'));
  } finally {
    await rm(root, { recursive: true, force: true });
  }
});

test('the certificate signs itself, belongs to its key, and does not end', () => {
  for (let round = 0; round < 20; round += 1) {
    const { key, cert, fingerprint } = makeTlsIdentity();
    const certificate = new X509Certificate(cert);
    assert.equal(certificate.verify(certificate.publicKey), true);
    assert.equal(certificate.checkPrivateKey(createPrivateKey(key)), true);
    assert.equal(certificate.subject, 'CN=shoal');
    assert.equal(certificate.checkIssued(certificate), true);
    assert.equal(certificate.validToDate.getUTCFullYear(), 9999);
    assert.equal(fingerprintOf(certificate.raw), fingerprint);
    assert.equal(certificate.fingerprint256.replaceAll(':', '').toLowerCase(), fingerprint);
  }
  assert.notEqual(makeTlsIdentity().fingerprint, makeTlsIdentity().fingerprint);
});
