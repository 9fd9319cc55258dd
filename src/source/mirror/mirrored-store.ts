import type { Clock } from '../../clock.ts';
import type { Chunk, ChunkRef } from '../../core/chunk.ts';
import { ShoalError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { type ChunkStore, type GetOptions, within } from '../../store/chunk-store.ts';
import type { MirrorChain, MirrorChains } from './chains.ts';
import type { MirrorBlobs, MirrorHost } from './mirror-host.ts';
import { throughMirrors } from './through-mirrors.ts';

interface Components {
  readonly chains: MirrorChains;
  readonly blobs: MirrorBlobs;
  readonly origin: ChunkStore;
  /** Goes around the store of each mirror: counts. */
  readonly counted: (inner: ChunkStore) => ChunkStore;
  readonly clock: Clock;
  readonly log: Logger;
}

/**
 * The mirrors of the chunk's registry, then the origin, chosen anew for each chunk: a mirror that fails in the middle of a
 * read costs that read one more source, and the chunks after it nothing. Throws what the origin throws.
 */
export function createMirroredStore(components: Components): ChunkStore {
  const { chains, blobs, origin, counted } = components;
  const counting = new WeakMap<MirrorHost, ChunkStore>();

  function storeOf(host: MirrorHost): ChunkStore {
    let store = counting.get(host);
    if (store === undefined) {
      store = counted(host.store);
      counting.set(host, store);
    }
    return store;
  }

  async function fromMirrors(
    chain: MirrorChain,
    repository: string,
    ref: ChunkRef,
    options: GetOptions,
  ): Promise<Chunk | undefined> {
    const question = { need: 'pull', repository, subject: ref.blob, ...pick(options) } as const;
    const outcome = await throughMirrors(components, chain, question, (host, signal) =>
      storeOf(host).get(ref, within(options, signal)),
    );
    if ('value' in outcome) return outcome.value;
    if (chain.origin.pull) return undefined;
    throw outcome.error ?? excluded(chain.registry);
  }

  return {
    has: (ref) => origin.has(ref),
    async get(ref, options) {
      options.signal.throwIfAborted();
      const asked = new Set<string>();
      let refused: unknown;
      let mayAskOrigin = false;
      for (const { registry, repository } of blobs.find(ref.blob)?.sources ?? []) {
        if (asked.has(registry)) continue;
        asked.add(registry);
        const found = chains.of(registry);
        // Without an await when it is at hand, so that the reads of one turn stay in one batch.
        const chain = found instanceof Promise ? await found : found;
        try {
          const chunk = chain.hosts.length === 0 ? undefined : await fromMirrors(chain, repository, ref, options);
          if (chunk !== undefined) return chunk;
          mayAskOrigin ||= chain.origin.pull;
          if (!chain.origin.pull) refused = excluded(registry);
        } catch (error) {
          if (options.signal.aborted) throw error;
          refused = error;
        }
      }
      if (refused !== undefined && !mayAskOrigin) throw refused;
      return await origin.get(ref, options);
    },
    async close() {
      await chains.close();
      await origin.close();
    },
  };
}

function pick({ signal, urgency }: GetOptions): Pick<GetOptions, 'signal' | 'urgency'> {
  return { signal, ...(urgency === undefined ? {} : { urgency }) };
}

function excluded(registry: string): ShoalError {
  return new ShoalError(
    'SOURCE_FAILED',
    `no mirror of ${registry} can be used, and the configuration keeps the registry itself from being asked`,
  );
}
