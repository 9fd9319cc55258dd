/** Swarm nodes in a process of their own, told what to do by the process that forked it: see `forkNodes`. */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import { systemClock } from '../../../src/clock.ts';
import { type Digest, sha256 } from '../../../src/core/digest.ts';
import { silentLogger } from '../../../src/log.ts';
import { type Swarm, startSwarm } from '../../../src/source/peer/swarm.ts';
import { parseSwarmKey } from '../../../src/source/peer/swarm-key.ts';

/** Digests that both processes can name. */
export function digestsOf(name: string, count: number): Digest[] {
  return Array.from({ length: count }, (_, index) => sha256(`${name} ${index}`));
}

/** One node on loopback; `own` is how many chunks it holds. */
export async function benchNode(init: {
  folder: string;
  name: string;
  keyText: string;
  bootstrapPort?: number;
  own?: number;
}): Promise<Swarm> {
  const { folder, name, keyText, bootstrapPort, own = 0 } = init;
  const held = {
    haveMap: () => undefined,
    async *all() {
      const batch = 4_096;
      for (let from = 0; from < own; from += batch) {
        yield Array.from({ length: Math.min(batch, own - from) }, (_, index) => sha256(`${name} ${from + index}`));
      }
    },
  };
  return await startSwarm(
    { held, clock: systemClock, log: silentLogger },
    {
      root: join(folder, name),
      key: parseSwarmKey(keyText, 'bench'),
      listen: { host: '127.0.0.1', port: 0 },
      address: '127.0.0.1',
      dataPort: 7947,
      fingerprint: sha256(`certificate ${name}`).slice('sha256:'.length),
      zone: '',
      bootstrap: bootstrapPort === undefined ? [] : [{ host: '127.0.0.1', port: bootstrapPort, id: undefined }],
      replication: 3,
      connectionsMax: 256,
      recordsMax: 1_000_000,
      memoryBytesMax: 4 * 1024 ** 3,
    },
  );
}

/** What the process that forked the nodes asks; every one is answered with a number or a list of numbers. */
export type NodesCommand =
  | { readonly do: 'announce'; readonly node: number; readonly name: string; readonly count: number }
  /** Connections that each node has. */
  | { readonly do: 'peers' }
  /** Records that all nodes keep. */
  | { readonly do: 'records' }
  /** [CPU seconds so far, longest block of the loop in ms since last asked, RSS in MiB]. */
  | { readonly do: 'usage' };

/** Nodes in another process. */
export interface ForkedNodes {
  readonly ports: readonly number[];
  ask(command: NodesCommand): Promise<number[]>;
  signal(name: 'SIGSTOP' | 'SIGCONT' | 'SIGKILL'): void;
  stop(): Promise<void>;
}

/** Starts `count` nodes in another process, which join one another and `bootstrapPort`. */
export async function forkNodes(init: {
  count: number;
  keyText: string;
  bootstrapPort?: number;
  own?: number;
  name?: string;
  /** Where their states go; default: where temporary files do. */
  folder?: string;
}): Promise<ForkedNodes> {
  const child: ChildProcess = fork(fileURLToPath(import.meta.url), [JSON.stringify(init)], {
    execArgv: ['--expose-gc'],
  });
  const [ports] = (await once(child, 'message')) as [number[]];
  return {
    ports,
    async ask(command) {
      child.send(command);
      const [answer] = (await once(child, 'message')) as [number[]];
      return answer;
    },
    signal(name) {
      child.kill(name);
    },
    async stop() {
      if (!child.connected) return;
      child.send('stop');
      await once(child, 'exit');
    },
  };
}

/** CPU, longest block and memory of this process, in the form of `usage`. */
export function usageOf(delay: ReturnType<typeof monitorEventLoopDelay>): number[] {
  const { user, system } = process.cpuUsage();
  const blockedMs = delay.max / 1e6;
  delay.reset();
  return [(user + system) / 1e6, blockedMs, process.memoryUsage().rss / 1024 ** 2];
}

async function serve(text: string): Promise<void> {
  const init = JSON.parse(text) as {
    count: number;
    keyText: string;
    bootstrapPort?: number;
    own?: number;
    name?: string;
    folder?: string;
  };
  const folder = mkdtempSync(join(init.folder ?? tmpdir(), 'shoal-bench-swarm-'));
  const delay = monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  const nodes: Swarm[] = [];
  let { bootstrapPort } = init;
  for (let index = 0; index < init.count; index += 1) {
    const node = await benchNode({
      folder,
      name: `${init.name ?? 'child'}-${index}`,
      keyText: init.keyText,
      ...(bootstrapPort === undefined ? {} : { bootstrapPort }),
      ...(init.own === undefined ? {} : { own: init.own }),
    });
    await node.joined;
    bootstrapPort ??= node.status().port;
    nodes.push(node);
  }
  const answer = async (command: NodesCommand): Promise<number[]> => {
    if (command.do === 'peers') return nodes.map((node) => node.peers().length);
    if (command.do === 'records') return nodes.map((node) => node.status().records);
    if (command.do === 'usage') return usageOf(delay);
    const node = nodes[command.node] as Swarm;
    node.announce(digestsOf(command.name, command.count));
    await node.announced();
    return [node.status().acknowledged];
  };
  process.on('disconnect', () => process.exit(1));
  process.on('message', async (command: NodesCommand | 'stop') => {
    if (command === 'stop') {
      await Promise.all(nodes.map((node) => node.stop()));
      rmSync(folder, { recursive: true, force: true });
      process.exit(0);
    }
    process.send?.(await answer(command));
  });
  process.send?.(nodes.map((node) => node.status().port));
}

if (import.meta.main) await serve(process.argv[2] as string);
