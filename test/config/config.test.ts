import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { type ConfigFlags, loadConfig, parseConfig } from '../../src/config.ts';
import { CONFIG_SCHEMA, camelCase, type SchemaNode } from '../../src/config-schema.ts';
import { renderConfig } from '../../src/config-text.ts';
import { hasCode } from '../../src/errors.ts';

const folder = { path: '' };
before(() => {
  folder.path = mkdtempSync(join(tmpdir(), 'shoal-config-'));
});
after(() => rmSync(folder.path, { recursive: true }));

function refusal(text: string, flags: ConfigFlags = {}): string {
  try {
    parseConfig(text, { name: 'c.toml', flags });
  } catch (error) {
    assert.ok(hasCode(error, 'CONFIG_INVALID'), String(error));
    return error.message;
  }
  assert.fail(`accepted: ${text}`);
}

test('an empty file gives every default', () => {
  const config = parseConfig('', { name: 'c.toml' });
  assert.equal(config.root, '/var/lib/shoal');
  assert.equal(config.trap.faultDeadlineMs, 30_000);
  assert.equal(config.fetch.ca, undefined);
  assert.deepEqual(config.registry, {});
});

test('every key of the schema that has a default is in the configuration, in camelCase', () => {
  const config = parseConfig('', { name: 'c.toml' }) as unknown as Record<string, Record<string, unknown>>;
  let seen = 0;
  for (const [section, node] of Object.entries(CONFIG_SCHEMA.properties) as [string, SchemaNode][]) {
    for (const [key, { default: value, description }] of Object.entries(node.properties ?? {})) {
      assert.ok(description, `${section}.${key} has no description`);
      if (value !== undefined) assert.deepEqual(config[section]?.[camelCase(key)], value, `${section}.${key}`);
      seen += 1;
    }
  }
  assert.ok(seen > 10);
});

test('an unknown key is refused with its line and the key that was probably meant', () => {
  assert.equal(
    refusal('root = "/x"\n\n[fetch]\nconections_per_registry = 3\n'),
    'c.toml line 4: unknown key fetch.conections_per_registry; did you mean connections_per_registry?',
  );
  assert.equal(refusal('[logs]\nlevel = "info"'), 'c.toml line 1: unknown key logs; did you mean log?');
  assert.equal(refusal('log.colour = true'), 'c.toml line 1: unknown key log.colour');
  assert.equal(
    refusal('[registry."reg.example:5000"]\nplain_htp = true'),
    'c.toml line 2: unknown key registry."reg.example:5000".plain_htp; did you mean plain_http?',
  );
});

test('a wrong value is refused with line, key and what is allowed', () => {
  assert.equal(refusal('\n[log]\nlevel = "loud"'), 'c.toml line 3: log.level must be one of debug, info, warn, error');
  assert.equal(refusal('root = "here"'), 'c.toml line 1: root must be an absolute path');
  assert.equal(refusal('[fetch]\nattempts = "3"'), 'c.toml line 2: fetch.attempts must be integer');
  assert.equal(refusal('[fetch]\nattempts = 0'), 'c.toml line 2: fetch.attempts must be >= 1');
  assert.match(
    refusal(`[control]\nsocket = "/${'a'.repeat(107)}"`),
    /control.socket is too long: .* at most 107 bytes/,
  );
});

test('text that is not TOML is refused with its line', () => {
  assert.match(refusal('root = "/x"\n[fetch\n'), /^c\.toml line 2: not TOML: /);
});

test('flags win over the file, and an error names the flag', () => {
  const config = parseConfig('root = "/a"\n[log]\nlevel = "warn"', {
    name: 'c.toml',
    flags: { root: '/b', socket: '/s', control: '/c', trap: 'fuse', 'log-level': 'debug' },
  });
  assert.equal(config.root, '/b');
  assert.equal(config.snapshotter.socket, '/s');
  assert.equal(config.control.socket, '/c');
  assert.equal(config.trap.kind, 'fuse');
  assert.equal(config.log.level, 'debug');
  assert.equal(refusal('', { trap: 'magic' }), '--trap: trap.kind must be one of auto, fanotify, fuse');
  assert.equal(refusal('trap = 1', { trap: 'fuse' }), 'c.toml line 1: trap must be object');
});

test('half-set security options are errors', () => {
  const registry = '[registry."r.example"]\n';
  assert.match(refusal(`${registry}username = "u"`), /registry\."r\.example"\.username is set without password_file/);
  assert.match(refusal(`${registry}password_file = "/p"`), /password_file is set without username/);
  assert.match(
    refusal('[auth]\nkubelet_provider_config = "/p"'),
    /kubelet_provider_config is set without kubelet_provider_dir/,
  );
  assert.match(
    refusal('[auth]\nkubelet_provider_dir = "/p"'),
    /kubelet_provider_dir is set without kubelet_provider_config/,
  );
  assert.match(refusal('[registry."https://r.example/"]\n'), /not a host name; expected host or host:port/);
  assert.match(refusal('[fetch]\nca = "/does/not/exist"'), /fetch\.ca: \/does\/not\/exist does not exist/);
});

test('a password file that others can read is refused with what to type', () => {
  const file = join(folder.path, 'password');
  writeFileSync(file, 'secret');
  const text = `[registry."r.example"]\nusername = "u"\npassword_file = ${JSON.stringify(file)}`;
  chmodSync(file, 0o640);
  assert.match(refusal(text), new RegExp(`open to others; type: chmod 600 ${file}`));
  chmodSync(file, 0o600);
  assert.equal(parseConfig(text, { name: 'c.toml' }).registry['r.example']?.passwordFile, file);
});

test('the configuration is frozen all the way down', () => {
  const config = parseConfig('[registry."r.example"]\ntoken_hosts = ["t.example"]', { name: 'c.toml' });
  assert.throws(() => Object.assign(config.log, { level: 'debug' }), TypeError);
  assert.throws(() => Object.assign(config.registry['r.example']?.tokenHosts ?? {}, { 0: 'x' }), TypeError);
  assert.throws(() => Object.assign(config.registry['r.example'] ?? {}, { tokenHosts: [] }), TypeError);
});

test('docker credentials come from DOCKER_CONFIG, else from the home folder, unless the file names them', () => {
  const dockerConfig = (text: string, env: Record<string, string>) =>
    parseConfig(text, { name: 'c.toml', env }).auth.dockerConfig;
  assert.equal(dockerConfig('', { HOME: '/h' }), '/h/.docker/config.json');
  assert.equal(dockerConfig('', { HOME: '/h', DOCKER_CONFIG: '/d' }), '/d/config.json');
  assert.equal(dockerConfig('[auth]\ndocker_config = "/x.json"', { HOME: '/h' }), '/x.json');
  assert.equal(dockerConfig('', {}), undefined);
});

test('a file that was named must exist; the default one need not', () => {
  assert.throws(
    () => loadConfig({ path: join(folder.path, 'none.toml') }),
    (error) => hasCode(error, 'CONFIG_INVALID') && error.message.includes('none.toml'),
  );
  const path = join(folder.path, 'some.toml');
  writeFileSync(path, 'root = "/some"');
  assert.equal(loadConfig({ path }).root, '/some');
});

test('what shoal config prints reads back as the same configuration', () => {
  const path = fc.stringMatching(/^\/[a-z"\\ #]{1,20}$/);
  const host = fc.stringMatching(/^[a-z]{1,8}(\.[a-z]{1,8})?(:[1-9][0-9]{0,3})?$/);
  const sections = fc.record({
    root: path,
    fetch: fc.record({ attempts: fc.integer({ min: 1, max: 20 }), only: fc.boolean() }),
    log: fc.record({ level: fc.constantFrom('debug', 'info', 'warn', 'error') }),
    registry: fc.dictionary(host, fc.record({ plain_http: fc.boolean(), token_hosts: fc.array(host) })),
  });
  fc.assert(
    fc.property(sections, ({ root, fetch, log, registry }) => {
      const text = [
        `root = ${JSON.stringify(root)}`,
        `[fetch]\nattempts = ${fetch.attempts}\nonly_configured = ${fetch.only}`,
        `[log]\nlevel = "${log.level}"`,
        ...Object.entries(registry).map(
          ([name, one]) =>
            `[registry.${JSON.stringify(name)}]\nplain_http = ${one.plain_http}\ntoken_hosts = ${JSON.stringify(one.token_hosts)}`,
        ),
      ].join('\n');
      const config = parseConfig(text, { name: 'c.toml' });
      assert.deepEqual(parseConfig(renderConfig(config), { name: 'printed' }), config);
    }),
    { numRuns: 200 },
  );
});

test('no text, however broken, gives another error than CONFIG_INVALID', () => {
  const line = fc.oneof(
    fc.constantFrom(
      '[fetch]',
      '[registry."a"]',
      '[[x]]',
      'root = 1',
      'a.b.c = {}',
      '[log',
      'level = "x"',
      '[__proto__]',
    ),
    fc.string(),
  );
  fc.assert(
    fc.property(fc.array(line, { maxLength: 6 }), (lines) => {
      try {
        parseConfig(lines.join('\n'), { name: 'c.toml', flags: { trap: 'fuse', root: '/x' } });
      } catch (error) {
        assert.ok(hasCode(error, 'CONFIG_INVALID'), String(error));
      }
    }),
    { numRuns: 2_000 },
  );
});

test('with a root of its own a daemon meets no other: sockets nobody named are in that root', () => {
  const own = loadConfig({ flags: { root: '/srv/one' } });
  assert.deepEqual(
    [own.snapshotter.socket, own.control.socket],
    ['/srv/one/snapshotter.sock', '/srv/one/control.sock'],
  );
  const named = loadConfig({ flags: { root: '/srv/one', socket: '/run/x.sock' } });
  assert.deepEqual([named.snapshotter.socket, named.control.socket], ['/run/x.sock', '/srv/one/control.sock']);
  assert.equal(loadConfig({}).control.socket, '/run/shoal/control.sock');
});

test('a swarm that is half set up is refused: port without key, key without port, a key that others can read', async () => {
  const { generateSwarmKey } = await import('../../src/source/peer/swarm-key.ts');
  const key = join(folder.path, 'swarm.key');
  writeFileSync(key, generateSwarmKey(), { mode: 0o600 });
  const good = `[swarm]\nlisten = "0.0.0.0:7946"\nkey_file = "${key}"\nbootstrap = ["shoal.example:7946"]\n`;
  const { swarm } = parseConfig(good, { name: 'c.toml' });
  assert.equal(swarm.dataPort, 7947);
  assert.equal(parseConfig('', { name: 'c.toml' }).swarm.listen, undefined, 'off by default');
  assert.match(refusal('[swarm]\nlisten = "0.0.0.0:7946"'), /swarm\.listen is set without swarm\.key_file/);
  assert.match(refusal(`[swarm]\nkey_file = "${key}"`), /swarm\.key_file is set without swarm\.listen/);
  assert.match(refusal('[swarm]\nbootstrap = ["a:1"]'), /swarm\.bootstrap is set without swarm\.listen/);
  assert.match(refusal(good.replace('shoal.example:7946', 'shoal.example')), /swarm\.bootstrap/);
  assert.match(refusal(good.replace('0.0.0.0:7946', '0.0.0.0:99999')), /swarm\.listen/);
  assert.match(refusal(`${good}memory_bytes_max = 67108864`), /memory_bytes_max/);
  chmodSync(key, 0o644);
  assert.match(refusal(good), /open to others/);
});
