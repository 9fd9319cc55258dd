import { join } from 'node:path';
import type { Digest } from '../core/digest.ts';
import { createDataPlane, type DataPlane, type DataPlaneComponents } from '../source/peer/data/data-plane.ts';
import { createHeldChunks } from '../source/peer/data/held-chunks.ts';
import { loadTlsIdentity } from '../source/peer/data/identity.ts';
import { indexKey } from '../source/peer/data/index-request.ts';
import type { HeldChunks, PeerDirectory } from '../source/peer/directory.ts';

/** A node's place in the swarm: who else is there, and what moves chunks between them. */
export interface Neighbourhood<Directory extends PeerDirectory> {
  readonly directory: Directory;
  readonly plane: DataPlane;
  /** These chunks of the layer are here from now on, for others too if they may be shared. */
  held(blob: Digest, digests: readonly Digest[]): void;
  /** There is an index of this layer from now on. */
  indexed(layer: Digest): void;
  /** These are not any more. */
  gone(digests: readonly Digest[]): void;
  stop(): Promise<void>;
}

/** Where the chunk server listens, and what it may give. */
export interface NeighbourhoodInit {
  readonly root: string;
  readonly host: string;
  readonly dataPort: number;
  /** 0: no limit. */
  readonly uploadBytesPerSecond: number;
  /** What a cold read may take, ms. */
  readonly deadlineMs?: number;
}

/**
 * Joins the swarm by `joinSwarm` and serves its neighbours. Needs no network but the ports to listen on. Throws
 * UNAVAILABLE when they are taken, and what `joinSwarm` throws.
 */
export async function openNeighbourhood<Directory extends PeerDirectory & { stop(): Promise<void> }>(
  components: Omit<DataPlaneComponents, 'directory' | 'identity'>,
  init: NeighbourhoodInit,
  joinSwarm: (held: HeldChunks, facts: { readonly fingerprint: string }) => Promise<Directory>,
): Promise<Neighbourhood<Directory>> {
  const { shareable } = components;
  const { root, dataPort: port, ...rest } = init;
  const stack = new AsyncDisposableStack();
  try {
    const identity = await loadTlsIdentity({ keysDir: join(root, 'keys') });
    const directory = await joinSwarm(createHeldChunks(components), identity);
    stack.defer(() => directory.stop());
    const plane = createDataPlane({ ...components, directory, identity }, { port, ...rest });
    stack.defer(() => plane.stop());
    await plane.start();
    const opening = openKept(components.blobs);
    stack.defer(() => opening.stop());
    return {
      directory,
      plane,
      held(blob, digests) {
        if (shareable(blob)) directory.announce(digests);
      },
      indexed(layer) {
        if (shareable(layer)) directory.announce([indexKey(layer)]);
      },
      gone: (digests) => directory.withdraw(digests),
      stop: () => stack.disposeAsync(),
    };
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  }
}

/** Opens every layer on disk: neighbours ask which parts of a layer are here, and are told of open ones only. */
function openKept(blobs: DataPlaneComponents['blobs']): { stop(): Promise<void> } {
  let stopped = false;
  const done = (async () => {
    for (const blob of await blobs.list()) {
      if (stopped) return;
      await blobs.open(blob);
    }
  })().catch(() => {}); // whoever needs the layer meets the error
  return {
    async stop() {
      stopped = true;
      await done;
    },
  };
}
