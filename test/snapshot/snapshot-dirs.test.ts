import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { hasCode } from '../../src/errors.ts';
import { silentLogger } from '../../src/log.ts';
import { diskUsage } from '../../src/snapshot/disk-usage.ts';
import { type LazyLayers, noLazyLayers } from '../../src/snapshot/lazy-layers.ts';
import { createMemoryMetaStore } from '../../src/snapshot/metastores.ts';
import { createSnapshotter, type Snapshotter } from '../../src/snapshot/snapshotter.ts';

const signal = new AbortController().signal;
const NO_LABELS: ReadonlyMap<string, string> = new Map();

let root = '';
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'shoal-dirs-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

function open(lazyLayers: LazyLayers = noLazyLayers): Promise<Snapshotter> {
  return createSnapshotter({ store: createMemoryMetaStore(), lazyLayers, log: silentLogger }, { root });
}

async function prepare(snapshotter: Snapshotter, key: string, parent = '', labels = NO_LABELS): Promise<string> {
  const [mount] = await snapshotter.prepare({ key, parent, labels }, { signal });
  if (mount?.type === 'bind') return mount.source;
  return mount?.options.find((option) => option.startsWith('upperdir='))?.slice('upperdir='.length) ?? assert.fail();
}

describe('snapshot directories', () => {
  it('are private, with a root that everyone may enter whatever the umask', async () => {
    chmodSync(root, 0o777);
    const before = process.umask(0o077);
    try {
      const snapshotter = await open();
      const files = await prepare(snapshotter, 'a');
      const mode = (path: string): number => statSync(path).mode & 0o7777;
      assert.deepEqual(
        [root, join(root, 'snapshots'), join(files, '..'), files].map(mode),
        [0o700, 0o700, 0o700, 0o755],
      );
      assert.ok(existsSync(join(files, '../work')));
    } finally {
      process.umask(before);
    }
  });

  it('never have a key, name or label in their path', async () => {
    const snapshotter = await open();
    const keys = ['/../../escape', '__proto__', 'a\0b', 'k'.repeat(5000), '../fs'];
    for (const key of keys) await prepare(snapshotter, key, '', new Map([[key.slice(0, 100), '../../x']]));
    assert.deepEqual(readdirSync(join(root, 'snapshots')).sort(), ['1', '2', '3', '4', '5']);
    assert.deepEqual(
      [...snapshotter.list([])].map(({ name }) => name),
      keys,
    );
    for (const key of keys) await snapshotter.remove(key);
    assert.deepEqual(readdirSync(join(root, 'snapshots')), []);
  });

  it('are refused when they are a symlink, or the root has a character mounts give a meaning', async () => {
    const invalid = (error: unknown): boolean => hasCode(error, 'CONFIG_INVALID');
    symlinkSync('/tmp', join(root, 'snapshots'));
    await assert.rejects(open(), invalid);
    const components = { store: createMemoryMetaStore(), lazyLayers: noLazyLayers, log: silentLogger };
    await assert.rejects(createSnapshotter(components, { root: join(root, 'a:b') }), invalid);
  });

  it('are refused when they belong to someone else', { skip: process.geteuid?.() !== 0 && 'needs root' }, async () => {
    mkdirSync(join(root, 'snapshots'));
    chownSync(join(root, 'snapshots'), 1000, 1000);
    await assert.rejects(open(), (error) => hasCode(error, 'CONFIG_INVALID'));
  });

  it('inherit the owner of the parent, or the one the user namespace maps root to', {
    skip: process.geteuid?.() !== 0 && 'needs root',
  }, async () => {
    const snapshotter = await open();
    chownSync(await prepare(snapshotter, 'a'), 7, 8);
    await snapshotter.commit({ name: 'A', key: 'a', parent: '', labels: NO_LABELS }, { signal });
    const owner = (path: string): number[] => [statSync(path).uid, statSync(path).gid];
    assert.deepEqual(owner(await prepare(snapshotter, 'b', 'A')), [7, 8]);
    const mapped = new Map([
      ['containerd.io/snapshot/uidmapping', '5:9:1,0:1000:65536'],
      ['containerd.io/snapshot/gidmapping', '0:2000:65536'],
    ]);
    assert.deepEqual(owner(await prepare(snapshotter, 'c', 'A', mapped)), [1000, 2000]);
    const wrong = new Map([['containerd.io/snapshot/uidmapping', '0:-1:5']]);
    await assert.rejects(prepare(snapshotter, 'd', 'A', wrong), (error) => hasCode(error, 'INVALID_ARGUMENT'));
  });

  it('left by a crash under the next number make way', async () => {
    const snapshotter = await open();
    mkdirSync(join(root, 'snapshots/1/fs'), { recursive: true });
    writeFileSync(join(root, 'snapshots/1/fs/old'), '');
    assert.deepEqual(readdirSync(await prepare(snapshotter, 'a')), []);
  });

  it('that belong to nobody go with cleanup, links and odd file names included; others stay', async () => {
    const snapshotter = await open();
    const kept = await prepare(snapshotter, 'a');
    for (const name of ['99', 'new-x', '01', 'rm-7'])
      mkdirSync(join(root, 'snapshots', name, 'fs'), { recursive: true });
    writeFileSync(Buffer.concat([Buffer.from(join(root, 'snapshots/99/fs/')), Buffer.from([0xff, 0x0a])]), '');
    symlinkSync(kept, join(root, 'snapshots/link'));
    await snapshotter.cleanup({ signal });
    assert.deepEqual(readdirSync(join(root, 'snapshots')), ['1']);
    assert.ok(existsSync(kept));
  });

  it('in the making survive a cleanup', async () => {
    const snapshotter = await open();
    const prepares = Array.from({ length: 40 }, (_, at) => prepare(snapshotter, `k${at}`));
    await Promise.all([...prepares, ...Array.from({ length: 20 }, () => snapshotter.cleanup({ signal }))]);
    for (const path of await Promise.all(prepares)) assert.ok(existsSync(path));
  });

  it('leave nothing behind when a prepare fails or is given up', async () => {
    const snapshotter = await open();
    await prepare(snapshotter, 'a');
    const taken = Array.from({ length: 5 }, () => prepare(snapshotter, 'same').catch((error) => error.code));
    const results = await Promise.all(taken);
    assert.equal(results.filter((result) => result === 'ALREADY_EXISTS').length, 4);
    const request = { key: 'b', parent: '', labels: NO_LABELS };
    await assert.rejects(snapshotter.prepare(request, { signal: AbortSignal.abort(new Error('gone')) }), /gone/);
    assert.equal(readdirSync(join(root, 'snapshots')).length, 2);
    assert.equal([...snapshotter.list([])].length, 2);
  });

  it('release a lazy run whose snapshot went away while it was being mounted', async () => {
    const released: number[] = [];
    const lazy: LazyLayers = {
      ...noLazyLayers,
      offer: async () => ({ blob: `sha256:${'0'.repeat(64)}` as never }),
      mountRun: async () => {
        await snapshotter.remove('target');
        return root;
      },
      releaseRun: async (id) => void released.push(id),
    };
    const snapshotter = await open(lazy);
    const labels = new Map([['containerd.io/snapshot.ref', 'target']]);
    await assert.rejects(prepare(snapshotter, 'a', '', labels), (error) => hasCode(error, 'ALREADY_EXISTS'));
    await assert.rejects(prepare(snapshotter, 'b', 'target'), (error) => hasCode(error, 'NOT_FOUND'));
    assert.deepEqual(released, [1, 1]);
  });
});

describe('disk usage', () => {
  it('is what du counts: blocks, hard links once, the root included', async () => {
    mkdirSync(join(root, 'a/b'), { recursive: true });
    writeFileSync(join(root, 'a/file'), Buffer.alloc(100_000, 1));
    linkSync(join(root, 'a/file'), join(root, 'a/b/same'));
    symlinkSync('x'.repeat(200), join(root, 'link'));
    execFileSync('truncate', ['-s', '10M', join(root, 'sparse')]);
    writeFileSync(Buffer.concat([Buffer.from(`${root}/a/`), Buffer.from([0xff])]), 'x');
    const usage = await diskUsage(root, { signal });
    const du = (...args: string[]): number =>
      Number(
        execFileSync('du', ['-s', ...args, root])
          .toString()
          .split('\t')[0],
      );
    assert.deepEqual(usage, { sizeBytes: du('--block-size=512') * 512, inodes: du('--inodes') });
    assert.ok(usage.sizeBytes < 1_000_000 && lstatSync(join(root, 'sparse')).size > 10_000_000);
  });

  it('ends when the signal says so', async () => {
    await assert.rejects(diskUsage(root, { signal: AbortSignal.abort(new Error('enough')) }), /enough/);
  });
});
