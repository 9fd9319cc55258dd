import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { hasCode } from '../../../src/errors.ts';
import { parseDuration } from '../../../src/source/mirror/duration.ts';
import { parseHostsFile } from '../../../src/source/mirror/hosts-file.ts';

const HERE = { name: '/c/hosts.toml', directory: '/c' };

/** Everything containerd and nydus-snapshotter know, in one file. */
const FULL = `server = "https://registry.example"
capabilities = ["pull"]
ca = "/etc/own.crt"
dial_timeout = "2s"

[host."https://z.example:8443/team"]
capabilities = ["Pull", "resolve", "push"]
ca = ["a.crt", "/abs/b.crt"]
client = [["c.cert", "c.key"], ["both.pem", ""]]
skip_verify = true
override_path = true
dial_timeout = "1m1.5s"
ping_url = "http://z.example:4003/healthy"
health_check_interval = 7
failure_limit = 4

[host."https://z.example:8443/team".header]
X-Dragonfly-Registry = "https://index.docker.io"
X-Many = ["one", "two"]

[host."a.example"]
client = "one.pem"
ca = "a.crt"

[host."http://[::1]:5000"]
`;

test('every key of containerd and of nydus is read', () => {
  const { hosts, server, warnings } = parseHostsFile(FULL, HERE);
  assert.deepEqual(warnings, []);
  assert.deepEqual(hosts[0], {
    origin: 'https://z.example:8443',
    path: '/team',
    pull: true,
    resolve: true,
    ca: ['/c/a.crt', '/abs/b.crt'],
    client: [
      ['/c/c.cert', '/c/c.key'],
      ['/c/both.pem', undefined],
    ],
    skipVerify: true,
    headers: [
      ['x-dragonfly-registry', 'https://index.docker.io'],
      ['x-many', 'one'],
      ['x-many', 'two'],
    ],
    // Go's 1m1.5s is more than shoal waits for anybody.
    dialTimeoutMs: 30_000,
    pingUrl: 'http://z.example:4003/healthy',
    healthCheckIntervalMs: 7_000,
    failureLimit: 4,
  });
  assert.deepEqual(hosts[1]?.client, [['/c/one.pem', undefined]]);
  assert.equal(hosts[1]?.origin, 'https://a.example');
  assert.equal(hosts[1]?.path, '/v2');
  assert.deepEqual([hosts[1]?.pull, hosts[1]?.resolve], [true, true]);
  assert.equal(hosts[2]?.origin, 'http://[::1]:5000');
  assert.deepEqual([server?.origin, server?.pull, server?.resolve], ['https://registry.example', true, false]);
  assert.deepEqual([server?.ca, server?.dialTimeoutMs], [['/etc/own.crt'], 2_000]);
});

test('hosts keep the order of the file, whatever they are called', () => {
  const names = ['zeta', '10', 'alpha', '2', 'beta:5000', '1'];
  const text = names.map((name) => `[host."${name}"]\nskip_verify = true\n`).join('\n');
  const { hosts } = parseHostsFile(text, HERE);
  const expected = names.map((name) => new URL(`https://${name}`).origin);
  assert.deepEqual(
    hosts.map(({ origin }) => origin),
    expected,
  );
});

test('the path of the API is as containerd makes it', () => {
  const cases: [url: string, override: boolean, path: string][] = [
    ['https://m', false, '/v2'],
    ['https://m/', false, '/v2'],
    ['https://m/v2', false, '/v2'],
    ['https://m/v2/', false, '/v2'],
    ['https://m/proxy', false, '/proxy/v2'],
    ['https://m/v2/proxy', false, '/v2/proxy/v2'],
    ['https://m/v2/proxy', true, '/v2/proxy'],
    ['https://m/', true, ''],
    ['https://m/a/../b', true, '/b'],
  ];
  for (const [url, override, path] of cases) {
    const { hosts } = parseHostsFile(`[host."${url}"]\noverride_path = ${override}\n`, HERE);
    assert.equal(hosts[0]?.path, path, url);
  }
});

test('a key nobody knows warns by name and line, and the rest stays in effect', () => {
  const { hosts, warnings } = parseHostsFile('serverr = "x"\n[host."m"]\nskip_verify = true\nmirrorz = 1\n', HERE);
  assert.deepEqual(warnings.toSorted(), [
    '/c/hosts.toml line 1: unknown key serverr',
    '/c/hosts.toml line 4: unknown key mirrorz',
  ]);
  assert.equal(hosts[0]?.skipVerify, true);
});

test('headers that carry credentials or make Dragonfly write files are not taken, and it is said which', () => {
  const refused = [
    'Authorization',
    'Cookie',
    'X-Forwarded-For',
    'X-Dragonfly-Output-Path',
    'X-Dragonfly-Force-Hard-Link',
    'Host',
    'Range',
    'Proxy-Authorization',
    'Content-Length',
    'Connection',
  ];
  const lines = refused.map((name) => `${name} = "x"`);
  const { hosts, warnings } = parseHostsFile(`[host."m".header]\nX-Fine = "yes"\n${lines.join('\n')}\n`, HERE);
  assert.deepEqual(hosts[0]?.headers, [['x-fine', 'yes']]);
  assert.deepEqual(
    warnings,
    refused.map((name, index) => `/c/hosts.toml line ${index + 3}: header ${name} is never sent to a mirror`),
  );
  const split = parseHostsFile('[host."m".header]\nX-A = "a\\r\\nCookie: b"\n', HERE);
  assert.deepEqual(split.hosts[0]?.headers, []);
});

test('what is wrong is refused with file and line', () => {
  const cases: [text: string, message: RegExp][] = [
    ['[host."m"]\ncapabilities = ["fetch"]', /^\/c\/hosts\.toml line 2: capabilities has "fetch"/],
    ['[host."m"]\n\nskip_verify = "yes"', /line 3: skip_verify must be true or false/],
    ['[host."m"]\nca = 1', /line 2: ca must be/],
    ['[host."m"]\nclient = [["a", "b", "c"]]', /line 2: client must be/],
    ['[host."m"]\ndial_timeout = "soon"', /line 2: dial_timeout must be a duration/],
    ['[host."m"]\nping_url = "file:///x"', /line 2: ping_url must be/],
    ['[host."m"]\nfailure_limit = -1', /line 2: failure_limit must be/],
    ['[host."ftp://m"]', /line 1: "ftp:\/\/m" is neither http nor https/],
    ['[host."https://user:secret@m"]', /line 1: a URL with a user name/],
    ['[host."https://m?x=1"]', /has a query/],
    ['[host."https://"]', /is not a host/],
    ['host = 3', /line 1: host must be a table/],
    ['server = 3', /line 1: server must be a string/],
    ['[host."m"', /line 1: not TOML/],
    [Array.from({ length: 40 }, (_, index) => `[host."m${index}"]`).join('\n'), /more than 32 hosts/],
    [`x = "${'a'.repeat(300_000)}"`, /larger than/],
  ];
  for (const [text, message] of cases) {
    assert.throws(
      () => parseHostsFile(text, HERE),
      (error) => hasCode(error, 'CONFIG_INVALID') && message.test(error.message) && !error.message.includes('secret'),
      text.slice(0, 80),
    );
  }
});

test('any text is parsed or refused, quickly', () => {
  const key = fc.constantFrom(
    'server',
    'capabilities',
    'ca',
    'client',
    'header',
    'skip_verify',
    'dial_timeout',
    '__proto__',
    'constructor',
  );
  const value = fc.oneof(
    fc.string().map((text) => JSON.stringify(text)),
    fc.integer().map(String),
    fc.constantFrom('true', '[]', '[[]]', '{}', '[["a","b"]]', '{a=1}', '1979-05-27', 'inf', '["pull"]'),
  );
  const line = fc.oneof(
    fc.tuple(key, value).map(([name, given]) => `${name} = ${given}`),
    fc.webUrl().map((url) => `[host.${JSON.stringify(url)}]`),
    fc.string().map((text) => `[host.${JSON.stringify(text)}]`),
    fc.string(),
    fc.constantFrom(`[${'"'.repeat(60)}`, `${'['.repeat(200)}`, `a${'.a'.repeat(500)} = 1`),
  );
  fc.assert(
    fc.property(fc.array(line, { maxLength: 12 }), (lines) => {
      const startedMs = performance.now();
      try {
        const { hosts } = parseHostsFile(lines.join('\n'), HERE);
        for (const { origin, path, headers } of hosts) {
          assert.match(origin, /^https?:\/\/[^/@]+$/);
          assert.ok(path === '' || path.startsWith('/'));
          for (const [name, given] of headers) assert.ok(!/[\r\n]/.test(name + given));
        }
      } catch (error) {
        if (!hasCode(error, 'CONFIG_INVALID')) throw error;
      }
      assert.ok(performance.now() - startedMs < 1_000);
    }),
    { numRuns: 500 },
  );
});

test('durations are read as Go writes them', () => {
  const cases: [text: string, ms: number | undefined][] = [
    ['30s', 30_000],
    ['1m30s', 90_000],
    ['1.5s', 1_500],
    ['250ms', 250],
    ['2h', 7_200_000],
    ['0', 0],
    ['5', undefined],
    ['', undefined],
    ['-1s', undefined],
    ['1s ', undefined],
    ['1d', undefined],
  ];
  for (const [text, ms] of cases) assert.equal(parseDuration(text), ms, text);
});
