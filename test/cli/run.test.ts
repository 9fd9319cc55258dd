import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { COMMANDS } from '../../src/cli/commands.ts';
import { runCli } from '../../src/cli/run.ts';
import { startControlServer } from '../../src/control/server.ts';
import type { StatusReport } from '../../src/control/status.ts';
import { silentLogger } from '../../src/log.ts';
import { createMetricsRegistry } from '../../src/metrics.ts';

async function run(argv: string[], init: { isTty?: boolean; signal?: AbortSignal } = {}) {
  const seen = { out: '', err: '' };
  const io = {
    isTty: init.isTty ?? false,
    hasColour: init.isTty ?? false,
    out(text: string) {
      seen.out += text;
    },
    err(text: string) {
      seen.err += text;
    },
  };
  const signal = init.signal ?? new AbortController().signal;
  const code = await runCli(argv, { io, signal, env: {} });
  return { code, ...seen };
}

function tempFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'shoal-cli-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

test('the help lists every command, and every command has a help of its own', async () => {
  const { code, out } = await run(['--help']);
  assert.equal(code, 0);
  for (const name of COMMANDS.keys()) {
    assert.match(out, new RegExp(`^ {2}${name}\\b`, 'm'));
    const own = await run(['help', name]);
    assert.equal(own.code, 0);
    assert.match(own.out, new RegExp(`^usage: shoal ${name}\\b`));
    assert.deepEqual(await run([name, '--help']), own);
  }
});

test('no command at all prints the help on standard error and exits 2', async () => {
  const { code, out, err } = await run([]);
  assert.equal(code, 2);
  assert.equal(out, '');
  assert.match(err, /usage: shoal COMMAND/);
});

test('a mistyped command is refused with the one that was probably meant', async () => {
  const { code, err } = await run(['sttaus']);
  assert.equal(code, 2);
  assert.equal(err, 'shoal: unknown command sttaus; did you mean status?\ntype: shoal help\n');
});

test('unknown options and wrong numbers of arguments exit 2 and point at the help', async () => {
  for (const argv of [
    ['status', '--jsn'],
    ['config', 'extra'],
    ['mount', 'only-one'],
    ['config', '--root'],
  ]) {
    const { code, err } = await run(argv);
    assert.equal(code, 2, argv.join(' '));
    assert.match(err, new RegExp(`\ntype: shoal help ${argv[0]}\n$`));
  }
  assert.match((await run(['--json'])).err, /options come after the command/);
});

test('every --set of a simulation counts', async () => {
  const scenario = fileURLToPath(new URL('../../sim/scenarios/flash-crowd.toml', import.meta.url));
  const argv = ['sim', scenario, '--set', 'nodes.count=3', '--set', 'image.app.size_mib=8', '--json'];
  const { code, out } = await run(argv);
  assert.equal(code, 0);
  const [small, larger] = [out, (await run(argv.with(5, 'image.app.size_mib=16'))).out].map((text) => JSON.parse(text));
  assert.equal(small.nodes, 3);
  assert.equal(larger.nodes, 3);
  assert.notDeepEqual(small, larger);
});

test('a configuration that is not valid exits 78 with one line that names file, line and key', async (t) => {
  const path = join(tempFolder(t), 'c.toml');
  writeFileSync(path, '\nrot = "/x"\n');
  const { code, err } = await run(['config', '--config', path]);
  assert.equal(code, 78);
  assert.equal(err, `shoal: CONFIG_INVALID: ${path} line 2: unknown key rot; did you mean root?\n`);
});

test('shoal config prints what is in effect, as TOML or JSON', async () => {
  const { out } = await run(['config', '--trap', 'fuse']);
  assert.match(out, /^kind = "fuse"$/m);
  const json = await run(['config', '--json', '--root', '/r']);
  assert.equal(JSON.parse(json.out).root, '/r');
});

test('without a daemon status exits 69 and says what to type', async (t) => {
  const { code, err } = await run(['status', '--control', join(tempFolder(t), 'no.sock')]);
  assert.equal(code, 69);
  assert.match(err, /start it with: shoal serve\n$/);
  assert.equal(err.split('\n').length, 2);
});

const REPORT: StatusReport = {
  daemon: {
    version: '1.2.3',
    pid: 2,
    startedAt: '2026-01-01T00:00:00.000Z',
    root: '/r',
    trap: { kind: 'fanotify', reason: 'it works' },
    rssBytes: 1024 ** 2,
  },
  images: [
    {
      reference: 'r.example/app:1',
      layers: [
        {
          digest: `sha256:${'a'.repeat(64)}`,
          format: 'estargz',
          bytesCompressed: 5,
          bytesTotal: 4096,
          bytesCached: 1024,
          complete: false,
          mounts: 1,
        },
        {
          digest: `sha256:${'b'.repeat(64)}`,
          format: 'unpacked',
          bytesCompressed: 0,
          bytesTotal: 0,
          bytesCached: 0,
          complete: true,
          mounts: 0,
        },
      ],
      error: 'bad\u001b[2J layer',
    },
  ],
  faults: { cold: 3, warm: 4, denied: 0 },
  bytesBySource: { origin: 2048 },
  sources: {
    origin: {
      requests: 3,
      chunks: 2,
      bytes: 2048,
      missing: 0,
      errors: { SOURCE_FAILED: 1 },
      meanMs: 4.5,
      slowestMs: 10,
    },
  },
  background: { state: 'paused', layers: 2, bytes: 512 },
  fetchedBytes: 1024,
  mounts: [],
  swarm: {
    given: { bytes: 4096, chunks: 2, missing: 1, busy: 0, cut: 0 },
    crossZone: { fromBytes: 1024, toBytes: 0 },
    corrupt: 1,
    hedges: 0,
    claims: { granted: 3, waited: 5, again: 0, hedged: 1, gaveUp: 1 },
  },
};

async function serveStatus(t: TestContext): Promise<string> {
  const socket = join(tempFolder(t), 'c.sock');
  const components = {
    source: { status: () => REPORT },
    metrics: createMetricsRegistry(),
    config: {},
    log: silentLogger,
  };
  const server = await startControlServer(components, { socket });
  t.after(() => server.stop());
  return socket;
}

test('status shows each image with its bytes here, in all, and where bytes came from', async (t) => {
  const socket = await serveStatus(t);
  const { code, out } = await run(['status', '--layers', '--control', socket]);
  assert.equal(code, 0);
  assert.match(out, /^trap +fanotify \(it works\)$/m);
  assert.match(out, /^faults +3 cold, 4 warm, 0 denied$/m);
  assert.match(out, /^bytes from +origin 2\.0 KiB$/m);
  assert.match(
    out,
    /^neighbours +4\.0 KiB given to them, 3 chunks claimed .*, 2 fetched although .*, 1\.0 KiB from other zones, 1 WRONG answers$/m,
  );
  assert.match(out, /^background +512 B fetched ahead of readers, 2 layers to complete \(paused\)$/m);
  assert.match(out, /^origin +2 +2\.0 KiB +0 +1 SOURCE_FAILED +4\.5 ms$/m);
  assert.match(out, /^r\.example\/app:1 +1 of 2 +1\.0 KiB +4\.0 KiB +25 %$/m);
  assert.match(out, /^ {2}sha256:a{12} estargz +1\.0 KiB +4\.0 KiB +25 %$/m);
  assert.match(out, /sha256:b{12} unpacked .*with containerd/);
  assert.match(out, /^error r\.example\/app:1: bad\u{fffd}\[2J layer$/mu);
  const json = await run(['status', '--json', '--control', socket]);
  assert.deepEqual(JSON.parse(json.out), REPORT);
});

test('status --watch goes on until it is interrupted', async (t) => {
  const socket = await serveStatus(t);
  const stop = new AbortController();
  setTimeout(() => stop.abort(new Error('interrupted')), 1_300);
  const { code, out } = await run(['status', '--watch', '--json', '--control', socket], { signal: stop.signal });
  assert.equal(code, 0);
  assert.ok(out.trimEnd().split('\n').length >= 2);
});

test('bin/shoal runs the program from anywhere and hands its exit code on', (t) => {
  const launcher = fileURLToPath(new URL('../../bin/shoal', import.meta.url));
  const version = spawnSync(launcher, ['version'], { cwd: tempFolder(t), encoding: 'utf8' });
  assert.match(version.stdout, /^shoal \d+\.\d+\.\d+ \(Node\.js \d+/);
  assert.equal(spawnSync(launcher, ['no-such-command']).status, 2);
});
