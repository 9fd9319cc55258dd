import type { Clock } from '../../../clock.ts';
import type { ChunkTable } from '../../../core/chunk-table.ts';
import type { Digest } from '../../../core/digest.ts';
import { SESSION_LIMITS } from '../../../core/policy/neighbour-limits.ts';
import { createSampling } from '../../../core/policy/sampling.ts';
import type { HaveMap, Neighbour, PeerDirectory } from '../directory.ts';

/** What is known of who holds which chunk of one blob. Hints: wrong ones cost a round trip. */
export interface BlobSession {
  /** Neighbours whose bitmap has this row. */
  holders(row: number): readonly Neighbour[];
  /** Resolves when a bitmap that has this row came, or the first ones all did, or a moment has passed. */
  settled(row: number, signal: AbortSignal): Promise<void>;
  /** Asks again for bitmaps that are old, in the background. */
  refresh(): void;
  /** This neighbour has a chunk of the blob: it may have more. */
  add(neighbour: Neighbour): void;
  /** It said it does not have this row. */
  lacks(id: string, row: number): void;
  /** It failed: somebody else takes its place. */
  drop(id: string): void;
  /** Whether the directory is worth asking for one more chunk, given how that went so far. */
  worthFinding(): boolean;
  foundAny(any: boolean): void;
  /** Whether neighbours are worth asking for one more chunk that no claim directs to them, given how that went so far. */
  worthAsking(): boolean;
  /** A neighbour gave the chunk, or was too busy to. */
  answered(gave: boolean): void;
}

interface Member {
  readonly neighbour: Neighbour;
  bits: Uint8Array | undefined;
  askedMs: number;
  asking: Promise<void> | undefined;
}

/** A session that asks some neighbours for their bitmaps at once, own zone first. */
export function createBlobSession(
  components: { directory: PeerDirectory; clock: Clock; random: () => number },
  init: { blob: Digest; table: ChunkTable | undefined },
): BlobSession {
  return new Session(components, init);
}

class Session implements BlobSession {
  readonly #directory: PeerDirectory;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #blob: Digest;
  readonly #rows: number;
  readonly #members = new Map<string, Member>();
  /** Waits for the first bitmaps, by what to call when one comes. */
  readonly #waiting = new Set<() => void>();
  readonly #readyAtMs: number;
  readonly #finds = createSampling({ failures: SESSION_LIMITS.emptyFinds, each: SESSION_LIMITS.sampleEach });
  readonly #asks = createSampling({ failures: SESSION_LIMITS.refusedInRow, each: SESSION_LIMITS.sampleEach });

  constructor(
    components: { directory: PeerDirectory; clock: Clock; random: () => number },
    { blob, table }: { blob: Digest; table: ChunkTable | undefined },
  ) {
    this.#directory = components.directory;
    this.#clock = components.clock;
    this.#random = components.random;
    this.#blob = blob;
    this.#rows = table?.count ?? 0;
    this.#readyAtMs = this.#clock.nowMs() + SESSION_LIMITS.mapWaitMs;
    this.#fillUp();
  }

  holders(row: number): readonly Neighbour[] {
    const found: Neighbour[] = [];
    for (const { neighbour, bits } of this.#members.values()) {
      if (bits !== undefined && hasBit(bits, row)) found.push(neighbour);
    }
    return found;
  }

  async settled(row: number, signal: AbortSignal): Promise<void> {
    while (!signal.aborted && this.#isYoung() && this.holders(row).length === 0) {
      let wake = (): void => {};
      const woken = new Promise<void>((resolve) => {
        wake = resolve;
      });
      this.#waiting.add(wake);
      signal.addEventListener('abort', wake, { once: true });
      const timer = setTimeout(wake, Math.max(1, this.#readyAtMs - this.#clock.nowMs()));
      await woken;
      clearTimeout(timer);
      signal.removeEventListener('abort', wake);
      this.#waiting.delete(wake);
    }
  }

  refresh(): void {
    const nowMs = this.#clock.nowMs();
    this.#fillUp();
    for (const member of this.#members.values()) {
      // Who does not know the blob is asked less often.
      const age = member.bits === undefined ? 4 * SESSION_LIMITS.refreshMs : SESSION_LIMITS.refreshMs;
      if (nowMs - member.askedMs >= age) this.#ask(member);
    }
  }

  add(neighbour: Neighbour): void {
    if (this.#members.has(neighbour.id) || this.#rows === 0) return;
    if (this.#members.size >= SESSION_LIMITS.maxMembers) {
      const useless = [...this.#members.values()].find(({ bits }) => bits === undefined);
      if (useless === undefined) return;
      this.#members.delete(useless.neighbour.id);
    }
    this.#join(neighbour);
  }

  lacks(id: string, row: number): void {
    const bits = this.#members.get(id)?.bits;
    if (bits !== undefined) bits[row >>> 3] = (bits[row >>> 3] ?? 0) & ~(1 << (row & 7));
  }

  drop(id: string): void {
    const member = this.#members.get(id);
    if (member === undefined) return;
    // Kept without a bitmap, so that it is asked again in a while and not at once.
    member.bits = undefined;
    member.askedMs = this.#clock.nowMs();
    this.#fillUp();
  }

  worthFinding(): boolean {
    return this.#finds.worthTrying();
  }

  foundAny(any: boolean): void {
    this.#finds.tried(any);
  }

  worthAsking(): boolean {
    return this.#asks.worthTrying();
  }

  answered(gave: boolean): void {
    this.#asks.tried(gave);
  }

  #isYoung(): boolean {
    if (this.#clock.nowMs() >= this.#readyAtMs) return false;
    for (const { asking } of this.#members.values()) if (asking !== undefined) return true;
    return false;
  }

  /** Takes in neighbours up to the first few: those of this zone first, in an order that differs from node to node. */
  #fillUp(): void {
    if (this.#rows === 0 || this.#members.size >= SESSION_LIMITS.firstMembers) return;
    const { zone } = this.#directory.self;
    const others = this.#directory.peers().filter(({ id, dataPort }) => dataPort > 0 && !this.#members.has(id));
    const ranked = others.map((peer) => ({ peer, rank: (peer.zone === zone ? 0 : 1) + this.#random() / 2 }));
    ranked.sort((a, b) => a.rank - b.rank);
    for (const { peer } of ranked.slice(0, SESSION_LIMITS.firstMembers - this.#members.size)) this.#join(peer);
  }

  #join(neighbour: Neighbour): void {
    const member: Member = { neighbour, bits: undefined, askedMs: 0, asking: undefined };
    this.#members.set(neighbour.id, member);
    this.#ask(member);
  }

  #ask(member: Member): void {
    if (member.asking !== undefined) return;
    member.askedMs = this.#clock.nowMs();
    const signal = AbortSignal.timeout(SESSION_LIMITS.mapDeadlineMs);
    member.asking = this.#directory
      .haveMap(member.neighbour, this.#blob, { signal })
      .then(
        (map) => {
          member.bits = usable(map, this.#rows);
        },
        () => {
          member.bits = undefined;
        },
      )
      .finally(() => {
        member.asking = undefined;
        for (const wake of this.#waiting) wake();
      });
  }
}

/** A copy of the bitmap, when it is one of a table of so many rows. */
function usable(map: HaveMap | undefined, rows: number): Uint8Array | undefined {
  if (map === undefined || map.rows !== rows || rows > 8 * SESSION_LIMITS.maxMapBytes) return undefined;
  if (map.bits.byteLength < Math.ceil(rows / 8)) return undefined;
  return Uint8Array.prototype.slice.call(map.bits, 0, Math.ceil(rows / 8));
}

function hasBit(bits: Uint8Array, row: number): boolean {
  return ((bits[row >>> 3] ?? 0) & (1 << (row & 7))) !== 0;
}
