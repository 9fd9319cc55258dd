import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { parse } from 'smol-toml';
import { checkContainerd, judgeKernel } from '../../src/cli/doctor/checks.ts';
import { judgeContainerdConfig, readContainerdConfig } from '../../src/cli/doctor/containerd-config.ts';
import { renderFindings } from '../../src/cli/doctor.ts';
import type { KernelReport } from '../../src/kernel/probe.ts';

const SOCKET = '/run/shoal/snapshotter.sock';
const PLUGIN = `[proxy_plugins.shoal]\ntype = "snapshot"\naddress = "${SOCKET}"\n`;

function judge(text: string) {
  return judgeContainerdConfig(parse(text), 'config.toml', SOCKET);
}

function levels(text: string): string {
  return judge(text)
    .map(({ level }) => level)
    .join(' ');
}

test('the configurations in deploy/containerd are found right', () => {
  for (const name of ['config-v2.toml', 'config-v3.toml']) {
    const path = new URL(`../../deploy/containerd/${name}`, import.meta.url);
    assert.equal(levels(readFileSync(path, 'utf8')), 'ok ok ok', name);
  }
});

test('without a proxy plugin the text to add is given, and works when it is added', () => {
  for (const version of [2, 3]) {
    const [finding] = judge(`version = ${version}`);
    assert.equal(finding?.level, 'fail');
    const text = finding?.fix?.split('\n').slice(1).join('\n') as string;
    assert.equal(judge(`version = ${version}\n${text}`)[0]?.level, 'ok');
  }
});

test('a plugin with another socket is named', () => {
  const [finding] = judge(`version = 2\n${PLUGIN.replace('snapshotter.sock', 'other.sock')}`);
  assert.match(
    finding?.text ?? '',
    /address \/run\/shoal\/other\.sock, not "snapshot" and \/run\/shoal\/snapshotter\.sock/,
  );
});

test('annotations that are off fail, because no layer would be lazy; following the advice ends that', () => {
  const cri = { 2: 'plugins."io.containerd.grpc.v1.cri".containerd', 3: 'plugins."io.containerd.cri.v1.images"' };
  for (const [version, section] of Object.entries(cri)) {
    const head = `version = ${version}\n${PLUGIN}`;
    assert.equal(levels(`${head}[${section}]\nsnapshotter = "overlayfs"`), 'ok warn');
    assert.equal(levels(`${head}[${section}]\nsnapshotter = "shoal"`), 'ok ok fail');
    const advice = judge(head)[1]?.fix?.split('\n').slice(1).join('\n');
    assert.equal(levels(`${head}${advice}`), 'ok ok ok');
    assert.equal(
      levels(
        `${head}[${section}]\nsnapshotter = "shoal"\ndisable_snapshot_annotations = false\ndiscard_unpacked_layers = true`,
      ),
      'ok ok ok warn',
    );
  }
});

test('a version 1 configuration is refused with what to write', () => {
  assert.match(judge('root = "/x"')[0]?.fix ?? '', /version = 2/);
});

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'shoal-doctor-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

test('imported files count, later ones winning', (t) => {
  const dir = folder(t);
  mkdirSync(join(dir, 'conf.d'));
  const main = join(dir, 'config.toml');
  writeFileSync(main, 'version = 2\nimports = ["conf.d/*.toml"]\n[proxy_plugins.other]\ntype = "content"\n');
  writeFileSync(join(dir, 'conf.d', 'a.toml'), PLUGIN.replace(SOCKET, '/old.sock'));
  writeFileSync(join(dir, 'conf.d', 'b.toml'), PLUGIN);
  const config = readContainerdConfig(main);
  assert.equal(judgeContainerdConfig(config, main, SOCKET)[0]?.level, 'ok');
  assert.ok((config.proxy_plugins as object as { other?: object }).other);
});

test('a configuration that is absent or broken is a finding, not a crash', async (t) => {
  const dir = folder(t);
  const socket = join(dir, 'none.sock');
  const absent = await checkContainerd({ socket, configPath: join(dir, 'none.toml') }, SOCKET);
  assert.deepEqual(
    absent.map(({ level }) => level),
    ['warn', 'fail'],
  );
  writeFileSync(join(dir, 'broken.toml'), '[x');
  const broken = await checkContainerd({ socket, configPath: join(dir, 'broken.toml') }, SOCKET);
  assert.equal(broken[1]?.level, 'fail');
});

const YES = { available: true, reason: 'yes' };
const NO = { available: false, reason: 'no' };

function kernel(overrides: Partial<KernelReport>): KernelReport {
  return {
    release: '6.18',
    filesystem: { ...YES, name: 'ext4' },
    erofs: { ...YES, fileBacked: YES, multiDevice: YES },
    fanotifyPreContent: YES,
    fuse: YES,
    overlay: { ...YES, append: YES },
    loop: YES,
    nofile: { ...YES, soft: 1_000_000, hard: 1_000_000 },
    ...overrides,
  };
}

function trapFinding(report: KernelReport, kind: 'auto' | 'fanotify' | 'fuse') {
  const finding = judgeKernel(report, kind).find(({ text }) => text.startsWith('trap'));
  return `${finding?.level} ${finding?.text}`;
}

test('the trap that will be used is explained', () => {
  assert.equal(trapFinding(kernel({}), 'auto'), 'ok trap: fanotify, because yes');
  assert.equal(trapFinding(kernel({}), 'fuse'), 'ok trap: FUSE, because trap.kind says so');
  const old = kernel({ fanotifyPreContent: NO });
  assert.equal(trapFinding(old, 'auto'), 'warn trap: FUSE, because fanotify does not work: no');
  assert.equal(trapFinding(old, 'fanotify'), 'fail trap: fanotify does not work: no');
  assert.match(trapFinding(kernel({ fanotifyPreContent: NO, fuse: NO }), 'auto'), /^fail trap: none/);
  const blocksOnly = kernel({
    erofs: { ...YES, fileBacked: YES, multiDevice: { available: false, reason: 'no files' } },
  });
  assert.equal(trapFinding(blocksOnly, 'auto'), 'warn trap: FUSE, because fanotify does not work: no files');
});

test('without file-backed EROFS the FUSE trap needs loop devices', () => {
  const old = kernel({ fanotifyPreContent: NO, erofs: { ...YES, fileBacked: NO, multiDevice: NO } });
  assert.ok(judgeKernel(old, 'auto').some(({ level, text }) => level === 'ok' && text.startsWith('loop devices')));
  const none = judgeKernel({ ...old, loop: NO }, 'auto');
  assert.ok(none.some(({ level, text }) => level === 'fail' && text.startsWith('loop devices')));
});

test('findings print one line each with what to do below, and a count', () => {
  const text = renderFindings(
    [
      { area: 'disk', level: 'ok', text: 'fine' },
      { area: 'kernel', level: 'fail', text: 'old', fix: 'first\nsecond' },
    ],
    { hasColour: false },
  );
  assert.equal(
    text,
    'ok    disk    fine\nfail  kernel  old\n              -> first\n                 second\n\n1 ok, 0 warn, 1 fail\n',
  );
});
