import type { Clock } from '../clock.ts';
import type { Config } from '../config.ts';
import type { Logger } from '../log.ts';
import { parseBootstrap, parseListen } from '../source/peer/bootstrap.ts';
import type { HeldChunks } from '../source/peer/directory.ts';
import type { Swarm } from '../source/peer/swarm.ts';
import { loadSwarmKey } from '../source/peer/swarm-key.ts';

/**
 * The swarm node a configuration asks for; undefined when the swarm is off, and then libp2p is not even loaded (some
 * 40 MiB). `fingerprint` is that of the data plane's certificate. Throws CONFIG_INVALID, STATE_CORRUPT, UNAVAILABLE.
 */
export async function startConfiguredSwarm(
  config: Pick<Config, 'root' | 'swarm'>,
  components: { held: HeldChunks; clock: Clock; log: Logger },
  init: { fingerprint: string },
): Promise<Swarm | undefined> {
  const { listen, keyFile, dataPort, zone, replication, bootstrap } = config.swarm;
  if (listen === undefined || keyFile === undefined) return undefined;
  const { startSwarm } = await import('../source/peer/swarm.ts');
  const where = parseListen(listen);
  const { connectionsMax, recordsMax, memoryBytesMax } = config.swarm;
  return await startSwarm(components, {
    root: config.root,
    key: loadSwarmKey(keyFile),
    listen: where,
    address: where.host,
    dataPort,
    zone,
    replication,
    bootstrap: bootstrap.map(parseBootstrap),
    fingerprint: init.fingerprint,
    connectionsMax,
    recordsMax,
    memoryBytesMax,
  });
}
