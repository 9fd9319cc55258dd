import { SESSION_LIMITS } from '../../../src/core/policy/neighbour-limits.ts';
import { createSampling } from '../../../src/core/policy/sampling.ts';
import type { ShoalNode } from './node.ts';
import type { Swarm } from './swarm.ts';

interface Member {
  readonly node: ShoalNode;
  bits: Uint8Array | undefined;
  askedMs: number;
  isAsking: boolean;
}

/**
 * The neighbours of one blob and their have-maps, after the daemon's blob session, with its limits: some neighbours are
 * asked at once, those that answer stay, old maps are asked for again when they lack what is wanted.
 */
export class Session {
  readonly #swarm: Swarm;
  readonly #own: ShoalNode;
  readonly #blob: number;
  readonly #members: Member[] = [];
  readonly #readyAtMs: number;
  #waiting: (() => void)[] = [];
  readonly #finds = createSampling({ failures: SESSION_LIMITS.emptyFinds, each: SESSION_LIMITS.sampleEach });
  readonly #asks = createSampling({ failures: SESSION_LIMITS.refusedInRow, each: SESSION_LIMITS.sampleEach });

  constructor(swarm: Swarm, own: ShoalNode, blob: number) {
    this.#swarm = swarm;
    this.#own = own;
    this.#blob = blob;
    this.#readyAtMs = swarm.clock.nowMs() + SESSION_LIMITS.mapWaitMs;
    this.#fillUp();
    swarm.world.timeline.after(SESSION_LIMITS.mapWaitMs, () => this.#wake());
  }

  holders(row: number, tried: readonly ShoalNode[]): ShoalNode[] {
    const found: ShoalNode[] = [];
    for (const { node, bits } of this.#members) {
      if (bits !== undefined && hasBit(bits, row) && !tried.includes(node)) found.push(node);
    }
    return found;
  }

  /** Calls back when a map that has the row came, the first ones all did, or a moment has passed. */
  settled(row: number, done: () => void): void {
    const look = (): void => {
      if (this.#isYoung() && this.holders(row, []).length === 0) this.#waiting.push(look);
      else done();
    };
    look();
  }

  refresh(): void {
    const nowMs = this.#swarm.clock.nowMs();
    this.#fillUp();
    for (const member of this.#members) {
      const ageMs = member.bits === undefined ? 4 * SESSION_LIMITS.refreshMs : SESSION_LIMITS.refreshMs;
      if (nowMs - member.askedMs >= ageMs) this.#ask(member);
    }
  }

  add(node: ShoalNode): void {
    if (this.#members.some((member) => member.node === node)) return;
    if (this.#members.length >= SESSION_LIMITS.maxMembers) {
      const useless = this.#members.findIndex(({ bits }) => bits === undefined);
      if (useless === -1) return;
      this.#members.splice(useless, 1);
    }
    this.#join(node);
  }

  lacks(node: ShoalNode, row: number): void {
    const bits = this.#members.find((member) => member.node === node)?.bits;
    if (bits !== undefined) bits[row >>> 3] = (bits[row >>> 3] ?? 0) & ~(1 << (row & 7));
  }

  drop(node: ShoalNode): void {
    const member = this.#members.find((each) => each.node === node);
    if (member === undefined) return;
    member.bits = undefined;
    member.askedMs = this.#swarm.clock.nowMs();
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
    return this.#swarm.clock.nowMs() < this.#readyAtMs && this.#members.some(({ isAsking }) => isAsking);
  }

  #fillUp(): void {
    for (let tries = 0; tries < 2 * SESSION_LIMITS.firstMembers; tries += 1) {
      if (this.#members.length >= SESSION_LIMITS.firstMembers) return;
      const peer = this.#swarm.randomPeer(this.#own);
      if (peer !== undefined && !this.#members.some(({ node }) => node === peer)) this.#join(peer);
    }
  }

  #join(node: ShoalNode): void {
    const member: Member = { node, bits: undefined, askedMs: 0, isAsking: false };
    this.#members.push(member);
    this.#ask(member);
  }

  #ask(member: Member): void {
    if (member.isAsking) return;
    member.askedMs = this.#swarm.clock.nowMs();
    member.isAsking = true;
    this.#swarm.haveMap(this.#own, member.node, this.#blob, (bits) => {
      member.bits = bits;
      member.isAsking = false;
      this.#wake();
    });
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const each of waiting) each();
  }
}

function hasBit(bits: Uint8Array, row: number): boolean {
  return ((bits[row >>> 3] ?? 0) & (1 << (row & 7))) !== 0;
}
