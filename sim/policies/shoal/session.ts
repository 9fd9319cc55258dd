import { SESSION_LIMITS } from '../../../src/core/policy/neighbour-limits.ts';
import { createSampling } from '../../../src/core/policy/sampling.ts';
import type { ShoalNode } from './node.ts';
import type { Swarm } from './swarm.ts';

/** One bit a member. */
const MOST_MEMBERS = 32;

/**
 * The neighbours of one blob and their have-maps, after the daemon's blob session, with its limits: some neighbours are
 * asked at once, those that answer stay, old maps are asked for again when they lack what is wanted. The maps lie across:
 * for each row one bit of each member, so that who has a row is one number.
 */
export class Session {
  readonly #swarm: Swarm;
  readonly #own: ShoalNode;
  readonly #blob: number;
  /** In the order in which they joined, and the bit of each. */
  readonly #members: ShoalNode[] = [];
  readonly #bits: number[] = [];
  readonly #rows: Uint32Array;
  /** Bits of members that gave a map, and of those that are being asked. */
  #known = 0;
  #asking = 0;
  /** Of each bit: when its member was asked last, ms, and how many members had it. */
  readonly #askedMs: Float64Array;
  readonly #turns: Uint32Array;
  readonly #readyAtMs: number;
  #waiting: (() => void)[] = [];
  readonly #finds = createSampling({ failures: SESSION_LIMITS.emptyFinds, each: SESSION_LIMITS.sampleEach });
  readonly #asks = createSampling({ failures: SESSION_LIMITS.refusedInRow, each: SESSION_LIMITS.sampleEach });

  constructor(swarm: Swarm, own: ShoalNode, blob: number) {
    const most = SESSION_LIMITS.maxMembers;
    if (most > MOST_MEMBERS) throw new RangeError(`a session has at most ${MOST_MEMBERS} members`);
    this.#swarm = swarm;
    this.#own = own;
    this.#blob = blob;
    this.#rows = new Uint32Array(swarm.rowsOf(blob));
    this.#askedMs = new Float64Array(most);
    this.#turns = new Uint32Array(most);
    this.#readyAtMs = swarm.clock.nowMs() + SESSION_LIMITS.mapWaitMs;
    this.#fillUp();
    swarm.world.timeline.after(SESSION_LIMITS.mapWaitMs, () => this.#wake());
  }

  holders(row: number, tried: readonly ShoalNode[]): ShoalNode[] {
    const found: ShoalNode[] = [];
    const having = this.#having(row);
    if (having === 0) return found;
    for (let at = 0; at < this.#members.length; at += 1) {
      const node = this.#members[at] as ShoalNode;
      if ((having & (1 << (this.#bits[at] as number))) !== 0 && !tried.includes(node)) found.push(node);
    }
    return found;
  }

  /** Whether a map that has the row may still come in a moment. */
  isUnsettled(row: number): boolean {
    return this.#asking !== 0 && this.#swarm.clock.nowMs() < this.#readyAtMs && this.#having(row) === 0;
  }

  /** Calls back when a map that has the row came, the first ones all did, or a moment has passed. */
  settled(row: number, done: () => void): void {
    if (this.isUnsettled(row)) this.#waiting.push(() => this.settled(row, done));
    else done();
  }

  refresh(): void {
    if (process.env.EXP && !this.#asks.worthTrying()) return;
    const nowMs = this.#swarm.clock.nowMs();
    this.#fillUp();
    for (let at = 0; at < this.#members.length; at += 1) {
      const bit = this.#bits[at] as number;
      const ageMs = (this.#known & (1 << bit)) === 0 ? 4 * SESSION_LIMITS.refreshMs : SESSION_LIMITS.refreshMs;
      if (nowMs - (this.#askedMs[bit] as number) >= ageMs) this.#ask(at);
    }
  }

  add(node: ShoalNode): void {
    if (this.#members.includes(node)) return;
    if (this.#members.length >= SESSION_LIMITS.maxMembers) {
      const useless = this.#bits.findIndex((bit) => (this.#known & (1 << bit)) === 0);
      if (useless === -1) return;
      this.#members.splice(useless, 1);
      const [bit] = this.#bits.splice(useless, 1);
      this.#asking &= ~(1 << (bit as number));
    }
    this.#join(node);
  }

  lacks(node: ShoalNode, row: number): void {
    const at = this.#members.indexOf(node);
    if (at !== -1) this.#rows[row] = (this.#rows[row] as number) & ~(1 << (this.#bits[at] as number));
  }

  drop(node: ShoalNode): void {
    const at = this.#members.indexOf(node);
    if (at === -1) return;
    const bit = this.#bits[at] as number;
    this.#known &= ~(1 << bit);
    this.#askedMs[bit] = this.#swarm.clock.nowMs();
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

  /** Bits of the members that have the row. */
  #having(row: number): number {
    return (this.#rows[row] as number) & this.#known;
  }

  #fillUp(): void {
    for (let tries = 0; tries < 2 * SESSION_LIMITS.firstMembers; tries += 1) {
      if (this.#members.length >= SESSION_LIMITS.firstMembers) return;
      const peer = this.#swarm.randomPeer(this.#own);
      if (peer !== undefined && !this.#members.includes(peer)) this.#join(peer);
    }
  }

  #join(node: ShoalNode): void {
    let bit = 0;
    while (this.#bits.includes(bit)) bit += 1;
    this.#turns[bit] = (this.#turns[bit] as number) + 1;
    this.#members.push(node);
    this.#bits.push(bit);
    this.#ask(this.#members.length - 1);
  }

  #ask(at: number): void {
    const bit = this.#bits[at] as number;
    if ((this.#asking & (1 << bit)) !== 0) return;
    const turn = this.#turns[bit] as number;
    this.#askedMs[bit] = this.#swarm.clock.nowMs();
    this.#asking |= 1 << bit;
    this.#swarm.haveMap(this.#own, this.#members[at] as ShoalNode, this.#blob, (map) => {
      if (turn === this.#turns[bit]) this.#note(bit, map);
      this.#wake();
    });
  }

  #note(bit: number, map: Uint8Array | undefined): void {
    const mask = 1 << bit;
    this.#asking &= ~mask;
    this.#known &= ~mask;
    if (map === undefined) return;
    this.#known |= mask;
    const rows = this.#rows;
    for (let row = 0; row < rows.length; row += 1) {
      const has = ((map[row >>> 3] as number) & (1 << (row & 7))) !== 0;
      rows[row] = has ? (rows[row] as number) | mask : (rows[row] as number) & ~mask;
    }
  }

  #wake(): void {
    if (this.#waiting.length === 0) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const each of waiting) each();
  }
}
