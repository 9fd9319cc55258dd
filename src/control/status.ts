/** Answer of `GET /v1/status`: what `shoal status --json` prints. Fields are only ever added. */
export interface StatusReport {
  readonly daemon: DaemonStatus;
  readonly images: readonly ImageStatus[];
  /** Over all images since the daemon started. */
  readonly faults: FaultCounts;
  /** Uncompressed bytes each source gave since the daemon started: `local`, `origin`, … */
  readonly bytesBySource: Readonly<Record<string, number>>;
  /** What each source did since the daemon started. */
  readonly sources: Readonly<Record<string, SourceStatus>>;
  /** Fetching ahead of readers. */
  readonly background: BackgroundStatus;
  /** Bytes of layers as they came over the network, compressed, since the daemon started; indexes not included. */
  readonly fetchedBytes: number;
  /** Images mounted by hand. */
  readonly mounts: readonly MountStatus[];
  /** Absent when the swarm is off. */
  readonly swarm?: SwarmTraffic;
}

/** What was given to neighbours and how reads from them went, since the daemon started. */
export interface SwarmTraffic {
  /** Uncompressed chunk bytes, and answers: whole chunks, not here, too many ask, cut because too slow or gone. */
  readonly given: {
    readonly bytes: number;
    readonly chunks: number;
    readonly missing: number;
    readonly busy: number;
    readonly cut: number;
  };
  /** Of what came from neighbours and of what was given to them. */
  readonly crossZone: { readonly fromBytes: number; readonly toBytes: number };
  /** Answers that were not what was asked for; each banned its sender for a while. */
  readonly corrupt: number;
  /** Reads that asked a second neighbour because the first was slow. */
  readonly hedges: number;
  /** What claims before going outside came to, in chunks. */
  readonly claims: {
    /** Fetched from outside for all. */
    readonly granted: number;
    /** Served by the node whose claim it was. */
    readonly waited: number;
    /** Claimed anew because no holder yielded the chunk. */
    readonly again: number;
    /** Fetched from outside although another node was fetching it: beside it, and after waiting too long. */
    readonly hedged: number;
    readonly gaveUp: number;
  };
}

/** What one source (`local`, `neighbour`, a mirror, `origin`) did. */
export interface SourceStatus {
  /** Questions that were answered, in whatever way; one per chunk. */
  readonly requests: number;
  /** Chunks it gave, and their uncompressed bytes. */
  readonly chunks: number;
  readonly bytes: number;
  /** Answers "I don't have it". */
  readonly missing: number;
  /** Failures by error code. */
  readonly errors: Readonly<Record<string, number>>;
  /** Mean time of a chunk it gave; 0 when it gave none. */
  readonly meanMs: number;
  /** The longest; in the totals the upper bound of its latency bucket. */
  readonly slowestMs: number;
}

/** What is fetched ahead of readers: what a start is likely to read, and the rest of images where that is wanted. */
export interface BackgroundStatus {
  /** `paused`: a container waits for a cold read, or the configured rate is used up. */
  readonly state: 'idle' | 'fetching' | 'paused';
  /** Layers that are to be completed. */
  readonly layers: number;
  /** Uncompressed bytes fetched so far. */
  readonly bytes: number;
}

/** An image at a directory, without containerd. */
export interface MountStatus {
  readonly reference: string;
  readonly directory: string;
  readonly manifestDigest: string;
}

export interface DaemonStatus {
  readonly version: string;
  readonly pid: number;
  /** RFC 3339. */
  readonly startedAt: string;
  readonly root: string;
  readonly trap: {
    readonly kind: 'fanotify' | 'fuse';
    /** Why this one, for people. */
    readonly reason: string;
  };
  readonly rssBytes: number;
}

/** Reads that reached a trap: of missing data, of data already there, and those answered with an error. */
export interface FaultCounts {
  readonly cold: number;
  readonly warm: number;
  readonly denied: number;
}

export interface ImageStatus {
  /** As containerd or `shoal mount` named it. */
  readonly reference: string;
  /** Absent when containerd told us layers only. */
  readonly manifestDigest?: string;
  readonly layers: readonly LayerStatus[];
  /** Reads of this image's layers since the daemon started; absent where a trap does not count per device. */
  readonly faults?: FaultCounts;
  readonly bytesBySource?: Readonly<Record<string, number>>;
  /** What each source did for its layers since the daemon started. */
  readonly sources?: Readonly<Record<string, SourceStatus>>;
  /** The last thing that went wrong, one line; absent when nothing did. */
  readonly error?: string;
}

export interface LayerStatus {
  readonly digest: string;
  /** `estargz`, …, or `unpacked` for a layer that containerd holds. */
  readonly format: string;
  /** Why it is read that way; absent for a layer that containerd holds. */
  readonly why?: string;
  /** Bytes of the layer in the registry, compressed; 0 for an unpacked layer. */
  readonly bytesCompressed: number;
  /** Uncompressed bytes of the layer's device; 0 for an unpacked layer. */
  readonly bytesTotal: number;
  /** How many of them are on this node. */
  readonly bytesCached: number;
  readonly complete: boolean;
  /** Mounts that use the layer. */
  readonly mounts: number;
}

/** Where the control server gets what it reports. */
export interface StatusSource {
  status(options: { signal: AbortSignal }): StatusReport | Promise<StatusReport>;
}
