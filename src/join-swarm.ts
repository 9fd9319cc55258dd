/** The swarm's part of the composition root; libp2p is loaded only where there is a swarm to join. */
import type { Config } from './config.ts';
import type { Digest } from './core/digest.ts';
import { matchesPattern } from './core/policy/background.ts';
import type { ImageRecords } from './lazy/images.ts';
import { type Neighbourhood, type NeighbourhoodComponents, openNeighbourhood } from './lazy/neighbourhood.ts';
import { parseBootstrap } from './source/peer/bootstrap.ts';
import type { Swarm } from './source/peer/swarm.ts';
import { loadSwarmKey } from './source/peer/swarm-key.ts';

/** Joins the swarm of the configuration; undefined when it names none. Throws CONFIG_INVALID, UNAVAILABLE. */
export async function joinSwarm(
  { swarm, root }: Pick<Config, 'swarm' | 'root'>,
  components: Omit<NeighbourhoodComponents, 'shareable'> & { readonly images: Pick<ImageRecords, 'namesOf'> },
): Promise<Neighbourhood<Swarm> | undefined> {
  if (swarm.listen === undefined || swarm.keyFile === undefined) return undefined;
  const listen = hostAndPort(swarm.listen);
  const key = loadSwarmKey(swarm.keyFile);
  const bootstrap = swarm.bootstrap.map(parseBootstrap);
  const shareable = (blob: Digest): boolean =>
    swarm.privateImages.length === 0 ||
    !components.images
      .namesOf(blob)
      .some((image) => swarm.privateImages.some((pattern) => matchesPattern(pattern, image)));
  const { startSwarm } = await import('./source/peer/swarm.ts');
  return await openNeighbourhood(
    { ...components, shareable },
    {
      root,
      host: listen.host,
      dataPort: swarm.dataPort,
      zone: swarm.zone,
      uploadBytesPerSecond: swarm.uploadBytesPerSecond,
    },
    (held, facts) =>
      startSwarm(
        { held, clock: components.clock, log: components.log },
        {
          ...facts,
          root,
          key,
          listen,
          bootstrap,
          address: swarm.address ?? listen.host,
          zone: swarm.zone,
          replication: swarm.replication,
          connectionsMax: swarm.connectionsMax,
          recordsMax: swarm.recordsMax,
          memoryBytesMax: swarm.memoryBytesMax,
        },
      ),
  );
}

/** `host:port` or `[v6]:port`, which the schema has checked. */
function hostAndPort(text: string): { host: string; port: number } {
  const colon = text.lastIndexOf(':');
  return { host: text.slice(0, colon).replace(/^\[(.*)\]$/, '$1'), port: Number(text.slice(colon + 1)) };
}
