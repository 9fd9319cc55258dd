import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { status } from '@grpc/grpc-js';
import { ShoalError } from '../../src/errors.ts';
import type { Mount } from '../../src/snapshot/mounts.ts';
import { collect, layer, mounted, withDaemon, withStatus } from '../suites/snapshotter-suite.ts';
import type { SnapshotsClient } from './client.ts';
import { FakeLazyLayers } from './fake-lazy-layers.ts';
import { inProcess } from './in-process.ts';
import { whyNoMounts } from './mounting.ts';
import { createFile } from './trees.ts';

const EXISTS = withStatus(status.ALREADY_EXISTS);
const UNAVAILABLE = withStatus(status.UNAVAILABLE);
const skip = whyNoMounts() ?? false;

interface Bench {
  readonly client: SnapshotsClient;
  readonly work: string;
  readonly lazy: FakeLazyLayers;
  readonly close: () => Promise<void>;
  /** A lazy layer with one file named after it; gives the name of its snapshot. */
  remote(name: string, parent: string): Promise<string>;
}

async function withRemote(run: (bench: Bench) => Promise<void>): Promise<void> {
  const root = mkdtempSync(join(tmpdir(), 'shoal-lazy-'));
  try {
    const lazy = new FakeLazyLayers(root);
    await withDaemon(inProcess(lazy), async ({ client, work, close }) => {
      const remote = async (name: string, parent: string): Promise<string> => {
        const { labels } = lazy.add(name, createFile(`/${name}`, name, 0o644));
        await assert.rejects(client.prepare(`extract-${name}`, parent, labels(`sha256:${name}`)), EXISTS);
        return `sha256:${name}`;
      };
      await run({ client, work, lazy, remote, close });
    });
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

function lowerOf(mounts: readonly Mount[]): string {
  const option = mounts[0]?.options.find((text) => text.startsWith('lowerdir='));
  return option?.slice('lowerdir='.length) ?? assert.fail('no lower directory');
}

describe('RemotePrepare', () => {
  it('commits the target with its parent and labels before it answers, and leaves no key behind', () =>
    withRemote(async ({ client, lazy, remote }) => {
      const bottom = await remote('bottom', '');
      const top = await remote('top', bottom);
      const info = await client.stat(top);
      assert.deepEqual([info.kind, info.parent], ['committed', bottom]);
      assert.equal(info.labels.get('containerd.io/snapshot.ref'), top);
      await assert.rejects(client.stat('extract-top'), withStatus(status.NOT_FOUND));
      const filter = `labels."containerd.io/snapshot.ref"==${top},parent=="${bottom}"`;
      assert.deepEqual(await collect(client.list([filter])), [info]);
      assert.deepEqual(
        lazy.offers.map(({ parent, allLazyBelow }) => [parent, allLazyBelow]),
        [
          ['', true],
          [bottom, true],
        ],
      );
    }));

  it('answers ALREADY_EXISTS without another offer when the target is there', () =>
    withRemote(async ({ client, lazy, remote }) => {
      const name = await remote('one', '');
      const { labels } = lazy.add('one', () => {});
      await assert.rejects(client.prepare('again', '', labels(name)), EXISTS);
      assert.equal(lazy.offers.length, 1);
    }));

  it('unpacks when the name is taken by a snapshot with another parent', () =>
    withRemote(async ({ client, lazy, remote }) => {
      const name = await remote('one', '');
      const other = await remote('other', '');
      const { labels } = lazy.add('one', () => {});
      assert.equal((await client.prepare('again', other, labels(name)))[0]?.type, 'overlay');
    }));

  it('joins concurrent prepares of one target into one offer', () =>
    withRemote(async ({ client, lazy }) => {
      const { labels } = lazy.add('one', createFile('/one', '1', 0o644));
      const prepare = async (at: number) => {
        await assert.rejects(client.prepare(`extract-${at}`, '', labels('sha256:one')), EXISTS);
        assert.equal((await client.stat('sha256:one')).kind, 'committed');
      };
      await Promise.all(Array.from({ length: 16 }, (_, at) => prepare(at)));
      assert.equal(lazy.offers.length, 1);
    }));

  it('keeps an offer going while anyone waits for it, and gives it up when nobody does', () =>
    withRemote(async ({ client, lazy }) => {
      const { blob, labels } = lazy.add('one', createFile('/one', '1', 0o644));
      let started = 0;
      let release = (): void => {};
      lazy.offer = (_layer, { signal }) => {
        started += 1;
        return new Promise((resolve, reject) => {
          release = () => resolve({ blob });
          signal.addEventListener('abort', () => reject(signal.reason));
        });
      };
      const request = { parent: '', labels: Object.entries(labels('t')).map(([key, value]) => ({ key, value })) };
      const impatient = client.call('Prepare', { key: 'a', ...request }, { timeoutMs: 200 });
      const patient = client.call('Prepare', { key: 'b', ...request });
      await assert.rejects(impatient, withStatus(status.DEADLINE_EXCEEDED));
      release();
      await assert.rejects(patient, EXISTS);
      assert.equal(started, 1);

      const lonely = { ...request, labels: [{ key: 'containerd.io/snapshot.ref', value: 'u' }] };
      await assert.rejects(client.call('Prepare', { key: 'c', ...lonely }, { timeoutMs: 100 }));
      const second = client.call('Prepare', { key: 'd', ...lonely });
      for (let wait = 0; started < 3 && wait < 1000; wait += 1) await sleep(5);
      release();
      await assert.rejects(second, EXISTS);
    }));

  it('prepares as usual when the layer is not offered, or offering it fails', () =>
    withRemote(async ({ client, lazy }) => {
      const labels = { 'containerd.io/snapshot.ref': 'sha256:plain' };
      assert.equal((await client.prepare('plain', '', labels))[0]?.type, 'bind');
      lazy.offer = async () => {
        throw new ShoalError('REGISTRY_RESPONSE', 'status 500');
      };
      assert.equal((await client.prepare('failing', '', labels))[0]?.type, 'bind');
      await assert.rejects(client.stat('sha256:plain'), withStatus(status.NOT_FOUND));
    }));
});

describe('RemoteOverlay', { skip }, () => {
  it('mounts lazy layers as one lower directory below a writable one', () =>
    withRemote(async ({ client, work, lazy, remote }) => {
      const top = await remote('top', await remote('bottom', ''));
      const mounts = await client.prepare('container', top);
      const { id, layers, bottom } = lazy.runs[0] ?? assert.fail('nothing was mounted');
      assert.deepEqual([layers.length, bottom], [2, true]);
      assert.match(lowerOf(mounts), new RegExp(`/runs/${id}$`));
      await mounted(work, mounts, (root) => {
        assert.equal(readFileSync(join(root, 'bottom'), 'utf8'), 'bottom');
        assert.equal(readFileSync(join(root, 'top'), 'utf8'), 'top');
        writeFileSync(join(root, 'new'), 'new');
      });
      assert.deepEqual(await client.mounts('container'), mounts);
    }));

  it('gives a view of lazy layers as a read-only bind of their mount', () =>
    withRemote(async ({ client, remote }) => {
      const top = await remote('top', await remote('bottom', ''));
      const [mount] = await client.view('view', top);
      assert.deepEqual([mount?.type, mount?.options], ['bind', ['ro', 'rbind']]);
      assert.match(mount?.source ?? '', /\/runs\/\d+$/);
    }));

  it('cuts a mixed chain into runs, whichever kind lies below', () =>
    withRemote(async (bench) => {
      const { client, work, lazy, remote } = bench;
      const first = await remote('first', '');
      const second = await layer(bench, 'second', first, createFile('/second', 'second', 0o644));
      const third = await remote('third', second);
      const fourth = await remote('fourth', third);
      const fifth = await layer(bench, 'fifth', fourth, createFile('/fifth', 'fifth', 0o644));
      const mounts = await client.view('view', fifth);
      const lowers = lowerOf(mounts).split(':');
      assert.deepEqual(
        lowers.map((path) => (path.includes('/runs/') ? 'run' : 'plain')),
        ['plain', 'run', 'plain', 'run'],
      );
      const bottoms = new Map(lazy.runs.map(({ layers, bottom }) => [layers.length, bottom]));
      assert.deepEqual([...bottoms].sort(), [
        [1, true],
        [2, false],
      ]);
      await mounted(work, mounts, (root) => {
        for (const name of ['first', 'second', 'third', 'fourth', 'fifth']) {
          assert.equal(readFileSync(join(root, name), 'utf8'), name);
        }
      });
    }));
});

describe('RemoteCommit', { skip }, () => {
  it('commits what was written on top of lazy layers', () =>
    withRemote(async (bench) => {
      const { client, work, remote } = bench;
      const base = await remote('base', '');
      const name = await layer(bench, 'written', base, createFile('/new', 'new', 0o644));
      await mounted(work, await client.view('view', name), (root) => {
        assert.equal(readFileSync(join(root, 'base'), 'utf8'), 'base');
        assert.equal(readFileSync(join(root, 'new'), 'utf8'), 'new');
      });
      assert.equal((await client.usage(name)).inodes, 2);
      assert.equal((await client.usage(base)).inodes, 1);
    }));

  it('releases the run of a removed snapshot and tells cleanup which blobs are left', () =>
    withRemote(async ({ client, lazy, remote }) => {
      const bottom = await remote('bottom', '');
      const top = await remote('top', bottom);
      await client.view('view', top);
      await assert.rejects(client.remove(top), withStatus(status.FAILED_PRECONDITION));
      await client.remove('view');
      await client.remove(top);
      assert.deepEqual(lazy.released, [lazy.runs[0]?.id]);
      await client.cleanup();
      assert.deepEqual(lazy.collected, [[lazy.blobOf('bottom')]]);
    }));
});

describe('FailureDetection', () => {
  for (const depth of ['flat', 'deep'] as const) {
    for (const overlay of [false, true]) {
      for (const broken of [false, true]) {
        const title = `${depth}${overlay ? ' with an unpacked layer on top' : ''}: ${broken ? 'broken' : 'ok'}`;
        it(title, () =>
          withRemote(async ({ client, lazy, remote }) => {
            const lowest = await remote('lowest', '');
            let top = depth === 'flat' ? lowest : await remote('upper', await remote('middle', lowest));
            if (overlay) {
              await client.prepare('plain-prepare', top);
              await client.commit('plain', 'plain-prepare');
              top = 'plain';
            }
            await client.prepare('active', top);
            await client.view('view', top);
            if (broken) lazy.broken.add(lazy.blobOf('lowest'));
            const calls = [
              () => client.mounts('active'),
              () => client.mounts('view'),
              () => client.prepare('active-2', top),
              () => client.view('view-2', top),
            ];
            for (const call of calls) {
              if (broken) await assert.rejects(call(), UNAVAILABLE);
              else assert.ok((await call()).length > 0);
            }
            const names = (await collect(client.list())).map(({ name }) => name);
            if (broken) assert.ok(!names.includes('active-2') && !names.includes('view-2'));
            for (const kind of ['active', 'view']) {
              for (const name of names) if (name.startsWith(kind)) await client.remove(name);
            }
            if (overlay) await client.remove('plain');
            for (const name of ['upper', 'middle', 'lowest']) {
              if (names.includes(`sha256:${name}`)) await client.remove(`sha256:${name}`);
            }
            assert.deepEqual(await collect(client.list()), []);
          }),
        );
      }
    }
  }
});
