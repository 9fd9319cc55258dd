import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { renderMirrors } from '../../src/cli/mirrors.ts';
import { runCli } from '../../src/cli/run.ts';
import { parseHostsFile } from '../../src/source/mirror/hosts-file.ts';
import { FakeDragonfly } from '../fakes/dragonfly.ts';

async function withInit(
  use: (init: {
    root: string;
    double: FakeDragonfly;
    run: (...args: string[]) => Promise<{ code: number; out: string; err: string }>;
  }) => Promise<void>,
): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'shoal-dragonfly-'));
  const root = join(dir, 'certs.d');
  const config = join(dir, 'config.toml');
  writeFileSync(config, `[mirrors]\nconfig_path = "${root}"\n`);
  await using double = await FakeDragonfly.start();
  try {
    await use({
      root,
      double,
      async run(...args) {
        const seen = { out: '', err: '' };
        const io = {
          isTty: false,
          hasColour: false,
          out(text: string) {
            seen.out += text;
          },
          err(text: string) {
            seen.err += text;
          },
        };
        const words = ['dragonfly', ...args, '--config', config, '--url', double.url, '--ping-url', double.healthUrl];
        const code = await runCli(words, { io, signal: new AbortController().signal, env: {} });
        return { code, ...seen };
      },
    });
  } finally {
    rmSync(dir, { recursive: true });
  }
}

test('init writes the hosts.toml of each registry, and of _default when none is named', async () => {
  await withInit(async ({ root, double, run }) => {
    const named = await run('init', 'docker.io', 'r.example:5000');
    assert.equal(named.code, 0, named.err);
    assert.match(
      named.out,
      /^found a Dragonfly client at http:\/\/127\.0\.0\.1:\d+\nwrote .*docker\.io\/hosts\.toml\n/,
    );
    const file = join(root, 'r.example_5000_/hosts.toml');
    const { hosts, server, warnings } = parseHostsFile(readFileSync(file, 'utf8'), { name: file, directory: root });
    assert.deepEqual(warnings, []);
    assert.equal(server?.origin, 'https://r.example:5000');
    assert.equal(hosts[0]?.origin, double.url);
    assert.equal(hosts[0]?.pingUrl, double.healthUrl);
    assert.deepEqual(hosts[0]?.headers, [['x-dragonfly-registry', 'https://r.example:5000']]);
    assert.equal((await run('init')).code, 0);
    const all = parseHostsFile(readFileSync(join(root, '_default/hosts.toml'), 'utf8'), { name: '', directory: root });
    assert.deepEqual(all.hosts[0]?.headers, [['x-dragonfly-use-p2p', 'true']]);
    assert.equal(all.server, undefined);
  });
});

test('init keeps what is there: the new entry comes first, a second run changes nothing', async () => {
  await withInit(async ({ root, double, run }) => {
    const file = join(root, 'docker.io/hosts.toml');
    mkdirSync(join(root, 'docker.io'), { recursive: true });
    const former = '# ours\nserver = "https://docker.io"\n\n[host."https://mirror.example"]\n  ca = "m.crt" # keep\n';
    writeFileSync(file, former);
    assert.match((await run('init', 'docker.io')).out, /added an entry to .*hosts\.toml/);
    const text = readFileSync(file, 'utf8');
    for (const line of former.split('\n')) assert.ok(text.includes(line), line);
    const { hosts, server } = parseHostsFile(text, { name: file, directory: '/c' });
    assert.deepEqual(
      hosts.map(({ origin }) => origin),
      [double.url, 'https://mirror.example'],
    );
    assert.equal(server?.origin, 'https://docker.io');
    const again = await run('init', 'docker.io');
    assert.match(again.out, /left alone .*: it names http:\/\/127\.0\.0\.1:\d+ already/);
    assert.equal(readFileSync(file, 'utf8'), text);
  });
});

test('init leaves a file alone that it cannot read or extend', async () => {
  const cases = ['[host."broken"', 'host = {"https://a.example" = {skip_verify = true}}\n'];
  for (const former of cases) {
    await withInit(async ({ root, run }) => {
      const file = join(root, 'docker.io/hosts.toml');
      mkdirSync(join(root, 'docker.io'), { recursive: true });
      writeFileSync(file, former);
      assert.match((await run('init', 'docker.io')).out, /left alone /);
      assert.equal(readFileSync(file, 'utf8'), former);
    });
  }
});

test('a dry run prints what it would write, and writes nothing', async () => {
  await withInit(async ({ root, double, run }) => {
    const { code, out } = await run('init', '--dry-run');
    assert.equal(code, 0);
    assert.match(out, /would write .*_default\/hosts\.toml\n {4}\[host\."http/);
    assert.ok(out.includes(double.url));
    assert.equal(existsSync(root), false);
  });
});

test('without a client that is well, init says where it looked', async () => {
  await withInit(async ({ root, double, run }) => {
    double.healthy = false;
    const sick = await run('init');
    assert.equal(sick.code, 1);
    assert.match(sick.err, /^shoal: NOT_FOUND: no Dragonfly client answers at http.*answered 500/);
    double.healthy = true;
    assert.equal(existsSync(root), false);
    const wrong = await run('init', 'not a registry');
    assert.equal(wrong.code, 2);
    assert.equal((await run('start')).code, 2);
  });
});

test('mirrors are shown in the order they are asked, with what is wrong below', () => {
  const text = renderMirrors(
    {
      enabled: true,
      configPath: '/etc/containerd/certs.d',
      registries: [
        {
          registry: 'docker.io',
          file: '/etc/containerd/certs.d/docker.io/hosts.toml',
          warnings: ['hosts.toml line 4: unknown key mirrorz'],
          origin: true,
          mirrors: [
            {
              url: 'http://127.0.0.1:4001',
              kind: 'dragonfly',
              capabilities: ['pull', 'resolve'],
              health: 'resting',
              requests: 12,
              failures: 3,
              bytes: 5 * 1024 * 1024,
              lastError: { message: '127.0.0.1:4001: connection failed\u001b[2J', at: '2026-01-01T00:00:00.000Z' },
            },
          ],
        },
        { registry: '_default', warnings: [], origin: true, mirrors: [], error: 'hosts.toml line 2: not TOML' },
      ],
    },
    { isTty: false, hasColour: false, out() {}, err() {} },
  );
  assert.deepEqual(text.split('\n'), [
    'mirrors from /etc/containerd/certs.d',
    'REGISTRY              ASKS                   KIND       FOR            HEALTH   READS  FAILED    BYTES',
    'docker.io             http://127.0.0.1:4001  dragonfly  pull, resolve  resting     12       3  5.0 MiB',
    '                      the registry itself    origin',
    'any other (_default)  the registry itself    origin',
    'warning hosts.toml line 4: unknown key mirrorz',
    'last error http://127.0.0.1:4001 at 2026-01-01T00:00:00.000Z: 127.0.0.1:4001: connection failed\ufffd[2J',
    'error of _default, whose newest hosts.toml is not in effect: hosts.toml line 2: not TOML',
    '',
  ]);
});
