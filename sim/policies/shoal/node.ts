import { createExpiringSet, type ExpiringSet } from '../../../src/core/policy/expiring-set.ts';
import { createHedging, type Hedging } from '../../../src/core/policy/hedging.ts';
import { NEIGHBOUR_LIMITS } from '../../../src/core/policy/neighbour-limits.ts';
import { createNeighbourScores, type NeighbourScores } from '../../../src/core/policy/neighbour-score.ts';
import type { Host } from '../../network/host.ts';
import type { SimChunk, SimLayer } from '../../workload/image.ts';
import { ClaimBatches } from './claim-batches.ts';
import { ChunkGet } from './get.ts';
import { Origin } from './origin.ts';
import { Server } from './server.ts';
import { Session } from './session.ts';
import type { Swarm } from './swarm.ts';
import { DIRECTORY_LIMITS } from './transport-limits.ts';

/** How urgent a read is. */
export type Urgency = 'demand' | 'prefetch';

/** A chunk and the layer it is wanted for. */
export interface Wanted {
  readonly chunk: SimChunk;
  readonly layer: SimLayer;
}

/** A node that runs shoal: what it holds, what it is getting, whom it knows. */
export class ShoalNode {
  /** What the daemon's policy code knows it by. */
  readonly id: number;
  readonly zone: string;
  readonly host: Host;
  readonly swarm: Swarm;
  readonly usesClaims: boolean;
  scores: NeighbourScores<number>;
  hedging: Hedging;
  /** Contents nobody had a moment ago. */
  nobody: ExpiringSet<number>;
  server: Server;
  origin: Origin;
  claims: ClaimBatches;
  #gets = new Map<number, ChunkGet>();
  /** By blob. */
  #sessions: (Session | undefined)[] = [];
  #fresh: number[] = [];

  constructor(swarm: Swarm, host: Host, init: { claims: boolean }) {
    this.swarm = swarm;
    this.host = host;
    this.id = host.index;
    this.zone = host.zone.name;
    this.usesClaims = init.claims;
    ({
      scores: this.scores,
      hedging: this.hedging,
      nobody: this.nobody,
      server: this.server,
      origin: this.origin,
      claims: this.claims,
    } = this.#memory());
  }

  has(content: number): boolean {
    return this.swarm.holdings.has(this.id, content);
  }

  /** Gets the chunk from wherever it is; `done` is called when it is here. Never fails: reads wait for the registry. */
  need(wanted: Wanted, urgency: Urgency, done: () => void): void {
    if (this.has(wanted.chunk.content)) {
      done();
      return;
    }
    const known = this.#gets.get(wanted.chunk.content);
    if (known !== undefined) {
      known.join(urgency, done);
      return;
    }
    const get = new ChunkGet(this, wanted, urgency);
    this.#gets.set(wanted.chunk.content, get);
    get.join(urgency, done);
    get.begin();
  }

  isGetting(content: number): boolean {
    return this.#gets.has(content);
  }

  /** Calls back when the chunk that is under way is here; false when none is. */
  joinUnderWay(content: number, urgency: Urgency, done: () => void): boolean {
    const get = this.#gets.get(content);
    get?.join(urgency, done);
    return get !== undefined;
  }

  /** The chunk is here, verified and on disk. */
  keep(content: number): void {
    this.#gets.delete(content);
    this.swarm.holdings.keep(this.id, content);
    this.#announce(content);
  }

  session(blob: number): Session {
    const known = this.#sessions[blob];
    if (known !== undefined) return known;
    const made = new Session(this.swarm, this, blob);
    this.#sessions[blob] = made;
    return made;
  }

  /** Everything in memory is gone; the disk keeps what it has until `wipe`. */
  died(): void {
    this.server.fail();
    this.#gets = new Map();
    this.#sessions = [];
    this.#fresh = [];
    Object.assign(this, this.#memory());
  }

  wipe(): void {
    this.swarm.holdings.wipe(this.id);
  }

  #memory() {
    return {
      scores: createNeighbourScores<number>({ ownZone: this.zone, random: () => this.swarm.random.next() }),
      hedging: createHedging({ sharers: () => this.swarm.nodes.length }),
      nobody: createExpiringSet<number>({ forMs: NEIGHBOUR_LIMITS.negativeMs, most: NEIGHBOUR_LIMITS.maxNegative }),
      server: new Server(this),
      origin: new Origin(this),
      claims: new ClaimBatches(this),
    };
  }

  #announce(content: number): void {
    this.#fresh.push(content);
    if (this.#fresh.length > 1) return;
    const { life } = this.host;
    this.swarm.world.timeline.after(DIRECTORY_LIMITS.announceDelayMs, () => {
      if (!this.host.isUp || this.host.life !== life) return;
      const contents = this.#fresh;
      this.#fresh = [];
      this.swarm.announce(this, contents);
    });
  }
}
