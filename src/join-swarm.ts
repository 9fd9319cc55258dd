/** The swarm's part of the composition root. */
import { join } from 'node:path';
import type { Config } from './config.ts';
import type { Digest } from './core/digest.ts';
import { matchesPattern } from './core/policy/background.ts';
import { ShoalError } from './errors.ts';
import type { ImageRecords } from './lazy/images.ts';
import type { LocalIndexes } from './lazy/local-indexes.ts';
import { type Neighbourhood, openNeighbourhood } from './lazy/neighbourhood.ts';
import { createSharedIndexes } from './lazy/shared-indexes.ts';
import { startConfiguredSwarm } from './lazy/swarm.ts';
import { parseListen } from './source/peer/bootstrap.ts';
import type { DataPlaneComponents } from './source/peer/data/data-plane.ts';
import { DATA_LIMITS } from './source/peer/data/limits.ts';
import type { Swarm } from './source/peer/swarm.ts';
import { openDocuments } from './store/documents.ts';

/** Joins the swarm of the configuration; undefined when it names none. Throws CONFIG_INVALID, UNAVAILABLE. */
export async function joinSwarm(
  config: Pick<Config, 'swarm' | 'root' | 'trap'>,
  components: Omit<DataPlaneComponents, 'shareable' | 'directory' | 'identity' | 'indexes'> & {
    readonly indexes: LocalIndexes;
    readonly images: Pick<ImageRecords, 'namesOf'>;
  },
): Promise<Neighbourhood<Swarm> | undefined> {
  const { listen, dataPort, uploadBytesPerSecond, privateImages } = config.swarm;
  if (listen === undefined) return undefined;
  const { clock, log, images } = components;
  const isPrivate = (image: string): boolean => privateImages.some((pattern) => matchesPattern(pattern, image));
  const shareable = (blob: Digest): boolean => privateImages.length === 0 || !images.namesOf(blob).some(isPrivate);
  let joined: Neighbourhood<Swarm> | undefined;
  const store = await openDocuments(
    { log, onGone: (digests) => joined?.gone(digests) },
    { directory: join(config.root, 'documents'), maxBytes: DATA_LIMITS.documentsBytes },
  );
  joined = await openNeighbourhood(
    {
      ...components,
      shareable,
      documents: { store, isPrivate },
      indexes: createSharedIndexes({ ...components, shareable }),
    },
    {
      ...{ root: config.root, host: parseListen(listen).host, dataPort, uploadBytesPerSecond },
      deadlineMs: config.trap.faultDeadlineMs,
    },
    async (held, { fingerprint }) => {
      const swarm = await startConfiguredSwarm(config, { held, clock, log }, { fingerprint });
      if (swarm === undefined) throw new ShoalError('CONFIG_INVALID', 'swarm.listen is set without swarm.key_file');
      return swarm;
    },
  );
  return joined;
}
