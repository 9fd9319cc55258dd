import type { Clock } from '../../../clock.ts';
import type { Chunk } from '../../../core/chunk.ts';
import { type Digest, digestAlgorithm } from '../../../core/digest.ts';
import { orAborted } from '../../../core/or-aborted.ts';
import { NEIGHBOUR_LIMITS } from '../../../core/policy/neighbour-limits.ts';
import { hasCode, ShoalError } from '../../../errors.ts';
import type { Logger } from '../../../log.ts';
import type { ChunkStore } from '../../../store/chunk-store.ts';
import type { DocumentStore } from '../../../store/documents.ts';
import type { SharedChunks } from '../../../store/shared-chunks.ts';
import { verifyChunk } from '../../../store/verify-chunk.ts';
import type { ClaimRequest, Neighbour, PeerDirectory } from '../directory.ts';
import type { ChunkClient } from './chunk-client.ts';
import { DATA_LIMITS } from './limits.ts';
import type { NeighbourStoreComponents } from './neighbour-store.ts';

/** What a document is wanted for. */
export interface DocumentUse {
  /** As `shoal status` names it. */
  readonly image: string;
  /** What its bytes count for: the layer it describes, or else the document itself. */
  readonly subject: Digest;
  readonly signal: AbortSignal;
}

/** A document that came from this node or a neighbour, or the duty to say what became of fetching it elsewhere. */
export type FoundDocument =
  | { readonly bytes: Uint8Array }
  | {
      readonly bytes: undefined;
      /** It came from elsewhere: kept, and given to others. `bytes` must hash to the digest, else nothing happens. */
      keep(bytes: Uint8Array): Promise<void>;
      /** It is not coming: somebody else may fetch it. Nothing after `keep`. */
      failed(): void;
    };

/** Manifests, configs and layer indexes from neighbours, by digest: they are verified like chunks, and are as small. */
export interface Documents {
  find(digest: Digest, use: DocumentUse): Promise<FoundDocument>;
  /** `find`, else `fetch`, which throws what it likes; fetched bytes are kept. */
  through(digest: Digest, use: DocumentUse, fetch: () => Promise<Uint8Array>): Promise<Uint8Array>;
  /** Answers that were not the document; each banned its sender. */
  readonly corrupt: number;
}

/** What the documents' owner needs. */
export interface DocumentsComponents {
  readonly store: DocumentStore;
  readonly directory: PeerDirectory;
  readonly client: ChunkClient;
  /** Goes around what neighbours give: counts, and remembers for `shoal explain`. */
  readonly counted: (inner: ChunkStore) => ChunkStore;
  readonly watched: (inner: ChunkStore) => ChunkStore;
  readonly answered: NeighbourStoreComponents['answered'];
  readonly clock: Clock;
  /** Whether documents of this image must stay here (S13); then neighbours are not asked either. */
  readonly isPrivate: (image: string) => boolean;
  readonly log: Logger;
}

/** Documents that may be given away. */
export function sharedDocuments(store: DocumentStore, isPrivate: (image: string) => boolean): Digest[] {
  return store
    .all()
    .filter(({ image }) => !isPrivate(image))
    .map(({ digest }) => digest);
}

/** Documents, and the chunks of `inner` with them, for neighbours that ask. */
export function createDocuments(components: DocumentsComponents): Documents & {
  serving(inner: SharedChunks): SharedChunks;
} {
  return new SwarmDocuments(components);
}

class SwarmDocuments implements Documents {
  readonly #components: DocumentsComponents;
  /** Those this node is getting, for neighbours and other reads that wait. */
  readonly #coming = new Map<Digest, PromiseWithResolvers<void>>();
  corrupt = 0;

  constructor(components: DocumentsComponents) {
    this.#components = components;
  }

  async find(digest: Digest, use: DocumentUse): Promise<FoundDocument> {
    const { directory, isPrivate } = this.#components;
    if (digestAlgorithm(digest) !== 'sha256' || isPrivate(use.image)) return NOT_SHARED;
    const own = await this.#own(digest, use.signal);
    if (own !== undefined) return { bytes: own.bytes };
    const claim: ClaimRequest = { blob: digest, region: 0, digests: [digest] };
    const end = this.#begin(claim);
    try {
      const chunk = directory.peers().length === 0 ? undefined : await this.#fromNeighbours(digest, claim, use);
      if (chunk === undefined) return this.#toBeFetched(digest, use, end);
      await this.#keep(chunk, use);
      end('held');
      return { bytes: chunk.bytes };
    } catch (error) {
      end('failed');
      throw error;
    }
  }

  async through(digest: Digest, use: DocumentUse, fetch: () => Promise<Uint8Array>): Promise<Uint8Array> {
    const found = await this.find(digest, use);
    if (found.bytes !== undefined) return found.bytes;
    try {
      const bytes = await fetch();
      await found.keep(bytes);
      return bytes;
    } finally {
      found.failed();
    }
  }

  serving(inner: SharedChunks): SharedChunks {
    const { store, isPrivate } = this.#components;
    const locate = (digest: Digest) => {
      const record = store.find(digest);
      return record === undefined || isPrivate(record.image) ? undefined : record;
    };
    return {
      async locate(digest) {
        const record = locate(digest);
        return record === undefined
          ? await inner.locate(digest)
          : { digest, length: record.length, blob: digest, index: 0 };
      },
      async read(ref, options) {
        if (ref.blob !== ref.digest) return await inner.read(ref, options);
        const chunk = await store.read(ref.digest);
        return chunk === undefined ? undefined : { bytes: chunk.bytes, release() {} };
      },
      underWay: (digest, urgency) => inner.underWay(digest, urgency) ?? this.#coming.get(digest)?.promise,
    };
  }

  /** What is on disk, or is by the time that another read of this node has it. */
  async #own(digest: Digest, signal: AbortSignal): Promise<Chunk | undefined> {
    const { store } = this.#components;
    const coming = this.#coming.get(digest);
    if (coming !== undefined) await orAborted(coming.promise, signal).catch(() => signal.throwIfAborted());
    return await store.read(digest);
  }

  /** From now on others may wait for it here, until the outcome is told. */
  #begin(claim: ClaimRequest): (outcome: 'held' | 'failed') => void {
    const [digest] = claim.digests as [Digest];
    const coming = Promise.withResolvers<void>();
    coming.promise.catch(() => {});
    if (!this.#coming.has(digest)) this.#coming.set(digest, coming);
    let isOver = false;
    return (outcome) => {
      if (isOver) return;
      isOver = true;
      if (this.#coming.get(digest) === coming) this.#coming.delete(digest);
      this.#components.directory.settle(claim, outcome);
      if (outcome === 'held') coming.resolve();
      else coming.reject(new ShoalError('CHUNK_MISSING', `document ${digest} did not come`));
    };
  }

  #toBeFetched(digest: Digest, use: DocumentUse, end: (outcome: 'held' | 'failed') => void): FoundDocument {
    let isKeeping = false;
    return {
      bytes: undefined,
      keep: async (bytes) => {
        isKeeping = true;
        try {
          await this.#keep(await verifyChunk({ digest, length: bytes.byteLength }, bytes), use);
          end('held');
        } catch {
          end('failed');
        }
      },
      failed: () => (isKeeping ? undefined : end('failed')),
    };
  }

  async #keep(chunk: Chunk, { image }: DocumentUse): Promise<void> {
    const { store, directory } = this.#components;
    // Nobody takes a larger one.
    if (chunk.bytes.byteLength > DATA_LIMITS.maxDocumentBytes) return;
    await store.put(chunk, image);
    if (store.find(chunk.digest) !== undefined) directory.announce([chunk.digest]);
  }

  /** From whoever says to have it, else from whom the claim names; undefined: it is ours to fetch. */
  async #fromNeighbours(digest: Digest, claim: ClaimRequest, use: DocumentUse): Promise<Chunk | undefined> {
    const { directory } = this.#components;
    const { documentFindMs, documentWaitMs, documentPeers } = DATA_LIMITS;
    const asked = new Set<string>();
    try {
      const signal = AbortSignal.any([use.signal, AbortSignal.timeout(documentFindMs)]);
      for await (const neighbour of directory.find(digest, { signal })) {
        asked.add(neighbour.id);
        const chunk = await this.#ask(neighbour, digest, use, 0);
        if (chunk !== undefined) return chunk;
        if (asked.size >= documentPeers) break;
      }
      const [answer] = await directory.claim(claim, { signal });
      if (answer?.kind !== 'ask') return undefined;
      for (const neighbour of answer.holders.filter(({ id }) => !asked.has(id)).slice(0, documentPeers)) {
        const chunk = await this.#ask(neighbour, digest, use, documentWaitMs);
        if (chunk !== undefined) return chunk;
      }
    } catch (error) {
      // Nobody answered in time: what the swarm does not have quickly comes from the registry.
      use.signal.throwIfAborted();
      if (!(error instanceof DOMException)) throw error;
    }
    return undefined;
  }

  async #ask(neighbour: Neighbour, digest: Digest, use: DocumentUse, waitMs: number): Promise<Chunk | undefined> {
    const { answered, client, clock, counted, directory, log, watched } = this.#components;
    const { maxDocumentBytes, documentWaitMs } = DATA_LIMITS;
    let length = 0;
    const single: ChunkStore = {
      has: () => false,
      get: async (_, { signal }) => {
        const options = { signal, urgency: 'demand', waitMs, isAtMost: true } as const;
        const startedMs = clock.nowMs();
        const told = (answer: { error?: unknown }): void =>
          answered?.(neighbour, digest, { ...answer, ms: clock.nowMs() - startedMs });
        try {
          const { chunk } = await client.fetch(neighbour, { digest, length: maxDocumentBytes }, options);
          length = chunk.bytes.byteLength;
          told({});
          return chunk;
        } catch (error) {
          told({ error });
          throw error;
        }
      },
      async close() {},
    };
    const store = watched(counted(single));
    const ref = {
      ...{ digest, blob: use.subject, index: 0 },
      // As long as it turns out to be.
      get length() {
        return length;
      },
    };
    try {
      const signal = AbortSignal.any([use.signal, AbortSignal.timeout(2 * documentWaitMs)]);
      return await store.get(ref, { signal });
    } catch (error) {
      use.signal.throwIfAborted();
      if (hasCode(error, 'CHUNK_CORRUPT')) {
        this.corrupt += 1;
        log.warn('neighbour sent wrong bytes, it is banned', { peer: neighbour.id, document: digest });
        directory.ban(neighbour.id, { reason: `wrong bytes for ${digest}`, forMs: NEIGHBOUR_LIMITS.banMs });
      }
      return undefined;
    }
  }
}

const NOT_SHARED: FoundDocument = { bytes: undefined, async keep() {}, failed() {} };
