import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../../src/clock.ts';
import { sha256 } from '../../../src/core/digest.ts';
import { type Logger, silentLogger } from '../../../src/log.ts';
import type { HeldChunks } from '../../../src/source/peer/directory.ts';
import { type Swarm, type SwarmInit, startSwarm } from '../../../src/source/peer/swarm.ts';
import { generateSwarmKey, parseSwarmKey, type SwarmKey } from '../../../src/source/peer/swarm-key.ts';
import { eventually, fakeHeld } from '../../suites/peer-directory-suite.ts';

/** A key for one test. */
export function newKey(): SwarmKey {
  return parseSwarmKey(generateSwarmKey(), 'test key');
}

/** Nodes on loopback, each with a root of its own below one folder that goes with them. */
export interface TestSwarm extends AsyncDisposable {
  readonly nodes: Swarm[];
  readonly key: SwarmKey;
  /** Starts one more that knows the first node's address, unless `init` says otherwise; `name` is its folder. */
  add(options?: { name?: string; held?: HeldChunks; log?: Logger; init?: Partial<SwarmInit> }): Promise<Swarm>;
  /** Waits until every node has a live connection to every other. */
  connected(): Promise<void>;
}

/** An empty swarm. */
export function testSwarm(shared: Partial<SwarmInit> = {}): TestSwarm {
  const folder = mkdtempSync(join(tmpdir(), 'shoal-swarm-'));
  const key = newKey();
  const nodes: Swarm[] = [];
  return {
    nodes,
    key,
    async add({ name = `node-${nodes.length}`, held = fakeHeld(), log = silentLogger, init = {} } = {}) {
      const first = nodes[0];
      const bootstrap = first === undefined ? [] : [{ host: '127.0.0.1', port: first.status().port, id: undefined }];
      const node = await startSwarm(
        { held, clock: systemClock, log },
        {
          root: join(folder, name),
          key,
          listen: { host: '127.0.0.1', port: 0 },
          address: '127.0.0.1',
          dataPort: 1000 + nodes.length,
          fingerprint: sha256(`certificate of ${name}`).slice('sha256:'.length),
          zone: 'zone-a',
          bootstrap,
          replication: 3,
          connectionsMax: 256,
          recordsMax: 1_000_000,
          memoryBytesMax: 4 * 1024 ** 3,
          ...shared,
          ...init,
        },
      );
      nodes.push(node);
      return node;
    },
    async connected() {
      await Promise.all(nodes.map(({ joined }) => joined));
      await eventually(() => {
        for (const node of nodes) {
          if (node.peers().length < nodes.length - 1)
            throw new Error(`${node.peers().length} of ${nodes.length - 1} peers`);
        }
      }, 30_000);
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(nodes.map((node) => node.stop()));
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
