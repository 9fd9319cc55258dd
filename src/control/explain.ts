import type { SourceStatus } from './status.ts';

/** Answer of `GET /v1/explain?target=…`: what `shoal explain --json` prints. Fields are only ever added. */
export type ExplainReport = ImageExplanation | LayerExplanation | ChunkExplanation;

/** An image on record here. */
export interface ImageExplanation {
  readonly kind: 'image';
  readonly reference: string;
  readonly manifestDigest?: string;
  /** Bottom to top. */
  readonly layers: readonly LayerFacts[];
  /** What each source did for its layers since the daemon started. */
  readonly sources: Readonly<Record<string, SourceStatus>>;
  /** Neighbours and mirrors that were asked lately for its chunks. */
  readonly peers: readonly PeerUse[];
  /** The latest fetches that failed, newest first. */
  readonly failures: readonly FetchStory[];
}

/** A layer, by the digest the registry has for it. */
export interface LayerExplanation {
  readonly kind: 'layer';
  readonly layer: LayerFacts;
  readonly images: readonly string[];
  /** Repositories it is known to be in. */
  readonly repositories: readonly string[];
  readonly sources: Readonly<Record<string, SourceStatus>>;
  readonly peers: readonly PeerUse[];
  /** Neighbours that have chunks of it; absent without a swarm. */
  readonly holders?: readonly Holder[];
  /** The latest fetches for it, newest first. */
  readonly fetches: readonly FetchStory[];
}

/** A chunk, by the digest of its bytes. */
export interface ChunkExplanation {
  readonly kind: 'chunk';
  readonly digest: string;
  /** Where its layers have it on this node. */
  readonly places: readonly ChunkPlace[];
  /** Neighbours that say they have it; absent without a swarm. */
  readonly holders?: readonly Holder[];
  readonly fetches: readonly FetchStory[];
  /** Why the latest fetch did not come from a neighbour; absent when it did, or none is remembered. */
  readonly whyNoNeighbour?: string;
}

/** What is here of a layer. */
export interface LayerFacts {
  readonly digest: string;
  readonly format: string;
  readonly lazy: boolean;
  /** Why containerd unpacked it. */
  readonly why?: string;
  readonly chunksHere: number;
  readonly chunksTotal: number;
  readonly bytesHere: number;
  readonly bytesTotal: number;
}

/** A row of a layer's chunk table. */
export interface ChunkPlace {
  readonly layer: string;
  readonly row: number;
  /** Uncompressed bytes. */
  readonly bytes: number;
  readonly here: boolean;
}

/** A neighbour that has something. */
export interface Holder {
  readonly peer: string;
  readonly address: string;
  readonly zone: string;
  /** Of the layer's chunks; absent when one chunk was asked for. */
  readonly chunks?: number;
}

/** How one neighbour or mirror answered lately. */
export interface PeerUse {
  readonly source: string;
  readonly peer: string;
  readonly chunks: number;
  /** Answers that were no chunk, by what they were. */
  readonly others: Readonly<Record<string, number>>;
  /** RFC 3339, of the latest answer. */
  readonly lastAt: string;
}

/** One fetch of one chunk. */
export interface FetchStory {
  /** RFC 3339, of its end. */
  readonly at: string;
  readonly digest: string;
  readonly layer: string;
  readonly bytes: number;
  readonly urgency: 'demand' | 'prefetch';
  /** Who gave it; null when nobody did. */
  readonly source: string | null;
  /** Sources as they were asked. */
  readonly steps: readonly {
    readonly source: string;
    readonly peer?: string;
    /** `served`, `missing`, `aborted` or an error code. */
    readonly outcome: string;
    readonly ms: number;
    readonly why?: string;
  }[];
}
