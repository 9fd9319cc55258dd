import { join } from 'node:path';
import { Level } from 'level';
import { silentLogger } from '../../src/log.ts';
import { serveSnapshots } from '../../src/snapshot/grpc.ts';
import { type LazyLayers, noLazyLayers } from '../../src/snapshot/lazy-layers.ts';
import { openLevelMetaStore } from '../../src/snapshot/metastores.ts';
import { createSnapshotter } from '../../src/snapshot/snapshotter.ts';
import type { DaemonFactory } from '../suites/snapshotter-suite.ts';
import { connectSnapshots } from './client.ts';

/** The snapshotter with its store and socket inside this process, put together as the daemon does. */
export function inProcess(lazyLayers: LazyLayers = noLazyLayers): DaemonFactory {
  return async ({ root, socket }) => {
    const db = new Level<string, string>(join(root, 'meta'));
    const log = silentLogger;
    const store = await openLevelMetaStore({ db });
    const snapshotter = await createSnapshotter({ store, lazyLayers, log }, { root });
    const server = await serveSnapshots({ snapshotter, log }, { socket });
    const client = connectSnapshots(socket);
    return {
      client,
      async close() {
        client.close();
        await server.close();
        await snapshotter.close();
        await store.close();
        await db.close();
      },
    };
  };
}
