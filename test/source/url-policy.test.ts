import assert from 'node:assert/strict';
import type { LookupAddress } from 'node:dns';
import type { LookupFunction } from 'node:net';
import { test } from 'node:test';
import fc from 'fast-check';
import { hasCode, ShoalError } from '../../src/errors.ts';
import { classifyAddress } from '../../src/source/address.ts';
import { registrableDomain } from '../../src/source/registrable-domain.ts';
import { type ApprovedUrl, createUrlPolicy, type Reach, type UrlPolicy } from '../../src/source/url-policy.ts';

const PATH = '/v2/a/b/blobs/sha256:00';

function refused(run: () => unknown, why = /./): void {
  assert.throws(run, (error) => hasCode(error, 'URL_REFUSED') && why.test(error.message));
}

function resolving(...addresses: string[]): LookupFunction {
  return (_host, _options, callback) =>
    callback(
      null,
      addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 })),
    );
}

function resolve(policy: UrlPolicy, reach: Reach, host = 'host.example'): Promise<LookupAddress[]> {
  return new Promise((done, fail) =>
    policy.lookup(reach)(host, { all: true }, (error, found) =>
      error === null ? done(found as LookupAddress[]) : fail(error),
    ),
  );
}

test('addresses are classified, IPv4 inside IPv6 included', () => {
  const cases: Record<string, string[]> = {
    public: ['8.8.8.8', '2606:4700::1111', '::ffff:8.8.8.8', '64:ff9b::8.8.8.8', '172.15.255.255', '172.32.0.1'],
    private: ['10.1.2.3', '172.16.0.1', '192.168.1.1', '100.64.0.1', 'fd00::1', '::ffff:10.0.0.1', '2002:a00:1::'],
    loopback: [
      '127.0.0.1',
      '127.255.0.9',
      '::1',
      '::ffff:127.0.0.1',
      '::127.0.0.1',
      '64:ff9b::7f00:1',
      '2002:7f00:1::',
    ],
    forbidden: [
      '0.0.0.0',
      '0.1.2.3',
      '169.254.169.254',
      '169.254.0.1',
      '100.100.100.200',
      '168.63.129.16',
      '192.0.0.192',
      '224.0.0.1',
      '255.255.255.255',
      '240.0.0.1',
      '::',
      '::ffff:169.254.169.254',
      '::ffff:0:169.254.169.254',
      '64:ff9b::a9fe:a9fe',
      '2002:a9fe:a9fe::',
      '2001:0:1::1',
      'fe80::1',
      'fe80::1%eth0',
      'fec0::1',
      'ff02::1',
      'fd00:ec2::254',
      'not an address',
      '',
    ],
  };
  for (const [kind, addresses] of Object.entries(cases)) {
    for (const address of addresses) assert.equal(classifyAddress(address), kind, address);
  }
});

test('a registry is asked over https, one on loopback or marked so over http', () => {
  const policy = createUrlPolicy({
    registries: { 'plain.example:5000': { plainHttp: true }, 'localhost:5001': { plainHttp: false } },
  });
  const href = (registry: string): string => policy.registry(registry, PATH).url.href;
  assert.equal(href('docker.io'), `https://registry-1.docker.io${PATH}`);
  assert.equal(href('ghcr.example:8443'), `https://ghcr.example:8443${PATH}`);
  assert.equal(href('localhost:5000'), `http://localhost:5000${PATH}`);
  assert.equal(href('127.0.0.1:5000'), `http://127.0.0.1:5000${PATH}`);
  assert.equal(href('[::1]:5000'), `http://[::1]:5000${PATH}`);
  assert.equal(href('localhost:5001'), `https://localhost:5001${PATH}`);
  assert.equal(href('plain.example:5000'), `http://plain.example:5000${PATH}`);
});

test('only registries on the list are asked when the operator says so', () => {
  const policy = createUrlPolicy({ onlyConfigured: true, registries: { 'known.example': {} } });
  assert.ok(policy.registry('known.example', PATH));
  refused(() => policy.registry('docker.io', PATH), /docker\.io is not configured/);
});

test('a registry whose name is a forbidden or private address is told apart', () => {
  const policy = createUrlPolicy();
  for (const host of [
    '169.254.169.254',
    '0.0.0.0:5000',
    '[fe80::1]',
    '[::ffff:169.254.169.254]',
    '[::]:80',
    '224.0.0.1',
  ]) {
    refused(() => policy.registry(host, PATH), /forbidden/);
  }
  assert.equal(policy.registry('10.0.0.5:5000', PATH).reach, 'public+private');
  assert.equal(policy.registry('10.0.0.5:5000', PATH).url.protocol, 'https:');
  refused(() => policy.registry('a.example', '/v2/../../x'), /not a path/);
  refused(() => policy.registry('a.example', '@evil.example/v2/'), /not a path|user name/);
});

test('a public registry can send us to no place but public https ones', () => {
  const policy = createUrlPolicy();
  const from = policy.registry('docker.io', PATH);
  const targets = [
    'http://cdn.example/x',
    'file:///etc/passwd',
    'ftp://cdn.example/',
    'data:text/plain,x',
    'javascript:0',
    'https://127.0.0.1/x',
    'https://127.1/x',
    'https://2130706433/x',
    'https://0x7f000001/x',
    'https://0177.0.0.1/x',
    'https://localhost/x',
    'https://a.localhost/x',
    'https://[::1]/x',
    'https://[::ffff:127.0.0.1]/x',
    'https://169.254.169.254/latest/meta-data/',
    'http://169.254.169.254/latest/meta-data/',
    'https://[fd00:ec2::254]/',
    'https://100.100.100.200/',
    'https://10.0.0.1/',
    'https://192.168.0.1/',
    'https://172.16.0.1/',
    'https://[fd00::1]/',
    'https://0.0.0.0/',
    'https://user:password@cdn.example/',
    'https://cdn.example:0/',
    'https://',
    `https://cdn.example/${'x'.repeat(9000)}`,
    '//169.254.169.254/x',
  ];
  for (const target of targets) refused(() => policy.redirect(from, target));
  assert.equal(policy.redirect(from, 'https://cdn.example/x?sig=1#f').url.href, 'https://cdn.example/x?sig=1');
  assert.equal(policy.redirect(from, '/v2/other').url.href, 'https://registry-1.docker.io/v2/other');
});

test('a loopback registry may send us to loopback, one that is allowed private addresses to those', () => {
  const policy = createUrlPolicy({
    registries: { 'corp.example': { allowPrivate: true }, 'minio.example:9000': { plainHttp: true } },
  });
  const loopback = policy.registry('127.0.0.1:5000', PATH);
  assert.equal(policy.redirect(loopback, 'http://127.0.0.1:9000/x').url.port, '9000');
  assert.equal(policy.redirect(loopback, 'http://localhost:9000/x').credentials, false);
  refused(() => policy.redirect(loopback, 'http://169.254.169.254/x'));
  refused(() => policy.redirect(loopback, 'http://10.0.0.1/x'));
  refused(() => policy.redirect(loopback, 'http://cdn.example/x'), /not loopback/);
  assert.ok(policy.redirect(loopback, 'http://minio.example:9000/x'));
  const corp = policy.registry('corp.example', PATH);
  assert.equal(policy.redirect(corp, 'https://10.0.0.1/x').reach, 'public+private');
  refused(() => policy.redirect(corp, 'https://127.0.0.1/x'), /loopback/);
  refused(() => policy.redirect(corp, 'https://169.254.169.254/x'), /forbidden/);
});

test('five redirects are followed, not six', () => {
  const policy = createUrlPolicy();
  let target: ApprovedUrl = policy.registry('docker.io', PATH);
  for (let hop = 1; hop <= 5; hop += 1) target = policy.redirect(target, `https://cdn${hop}.example/x`);
  refused(() => policy.redirect(target, 'https://cdn6.example/x'), /more than 5/);
});

test('credentials leave for the registry itself only, and do not come back after a detour', () => {
  const policy = createUrlPolicy();
  const own = policy.registry('reg.example', PATH);
  const sent = (target: ApprovedUrl): boolean =>
    policy.headers(target, { authorization: 'Basic eA==' }).includes('Basic eA==');
  assert.equal(sent(own), true);
  assert.equal(sent(policy.redirect(own, '/elsewhere')), true);
  for (const away of ['https://reg.example:8443/', 'https://cdn.reg.example/', 'https://evil.example/']) {
    const target = policy.redirect(own, away);
    assert.equal(sent(target), false, away);
    assert.equal(sent(policy.redirect(target, `https://reg.example${PATH}`)), false, 'after a detour');
  }
});

test('no header leaves but the ones on the list', () => {
  const policy = createUrlPolicy({ userAgent: 'shoal/test' });
  const target = policy.registry('reg.example', PATH);
  const given = { range: 'bytes=0-1', accept: 'x/y', cookie: 'a=b', 'x-forwarded-for': '1.2.3.4' };
  assert.deepEqual(policy.headers(target, given), [
    ...['user-agent', 'shoal/test', 'accept-encoding', 'identity', 'accept', 'x/y', 'range', 'bytes=0-1'],
  ]);
});

test('tokens are asked for at the own domain or a configured host, over https', () => {
  const policy = createUrlPolicy({ registries: { 'a.example': { tokenHosts: ['sso.other.example:8443'] } } });
  const allowed: [string, string][] = [
    ['docker.io', 'https://auth.docker.io/token'],
    ['a.example', 'https://a.example/token'],
    ['reg.corp.co.uk', 'https://auth.corp.co.uk/token'],
    ['a.example', 'https://sso.other.example:8443/token'],
    ['127.0.0.1:5000', 'http://127.0.0.1:5001/token'],
    ['localhost:5000', 'http://localhost:5000/token'],
  ];
  for (const [registry, realm] of allowed) assert.ok(policy.token(registry, realm), realm);
  const forbidden: [string, string][] = [
    ['docker.io', 'https://auth.evil.example/token'],
    ['a.example', 'http://a.example/token'],
    ['a.example', 'https://sso.other.example/token'],
    ['reg.corp.co.uk', 'https://evil.co.uk/token'],
    ['tenant.azurecr.io', 'https://evil.azurecr.io/token'],
    ['a.example', 'https://8.8.8.8/token'],
    ['a.example', 'https://169.254.169.254/token'],
    ['a.example', 'https://127.0.0.1/token'],
    ['127.0.0.1:5000', 'http://169.254.169.254/token'],
    ['127.0.0.1:5000', 'https://evil.example/token'],
    ['a.example', 'https://user@a.example/token'],
    ['a.example', 'file:///etc/passwd'],
    ['a.example', 'not a url'],
  ];
  for (const [registry, realm] of forbidden) {
    assert.throws(
      () => policy.token(registry, realm),
      (error) => hasCode(error, 'AUTH_REFUSED') && error.message.includes(registry),
      realm,
    );
  }
  assert.equal(registrableDomain('a.b.example.com'), 'example.com');
  assert.equal(registrableDomain('co.uk'), undefined);
});

test('a name that resolves out of reach is refused when the connection is made', async () => {
  const lies = createUrlPolicy({ lookup: resolving('169.254.169.254') });
  for (const reach of ['public', 'public+private', 'public+private+loopback'] as const) {
    await assert.rejects(
      resolve(lies, reach),
      (error) => hasCode(error, 'URL_REFUSED') && /host\.example resolves to 169/.test(error.message),
    );
  }
  await assert.rejects(resolve(createUrlPolicy({ lookup: resolving('127.0.0.1') }), 'public'), /allow_private/);
  await assert.rejects(resolve(createUrlPolicy({ lookup: resolving('10.0.0.1') }), 'public'), /allow_private/);
  await assert.rejects(resolve(createUrlPolicy({ lookup: resolving() }), 'public'), /nothing/);
  const mixed = createUrlPolicy({ lookup: resolving('10.0.0.1', '8.8.8.8', '::1', 'fe80::1') });
  assert.deepEqual(await resolve(mixed, 'public'), [{ address: '8.8.8.8', family: 4 }]);
  assert.deepEqual(
    (await resolve(mixed, 'public+private')).map(({ address }) => address),
    ['10.0.0.1', '8.8.8.8'],
  );
});

test('no location makes the policy throw anything but URL_REFUSED, nor approve what it must not', () => {
  const policy = createUrlPolicy();
  const from = policy.registry('reg.example', PATH);
  const octet = fc.integer({ min: 0, max: 255 });
  const literal = fc.tuple(octet, octet, octet, octet).map((parts) => `https://${parts.join('.')}/x`);
  const number = fc.integer({ min: 0, max: 0xffffffff }).map((value) => `https://${value}/`);
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.webUrl(), literal, number), (location) => {
      try {
        const { url, credentials } = policy.redirect(from, location);
        assert.equal(url.protocol, 'https:');
        const literalHost = /^[\d.]+$/.test(url.hostname) || url.hostname.startsWith('[');
        if (literalHost) assert.equal(classifyAddress(url.hostname.replace(/^\[|\]$/g, '')), 'public');
        assert.equal(credentials, url.origin === from.url.origin);
      } catch (error) {
        assert.ok(error instanceof ShoalError && error.code === 'URL_REFUSED', String(error));
      }
    }),
    { numRuns: 2000 },
  );
});
