import { CLAIM_WAIT_LIMITS } from '../../../src/core/policy/claim-wait-limits.ts';
import { NEIGHBOUR_LIMITS } from '../../../src/core/policy/neighbour-limits.ts';
import { appended, removeFrom } from '../../engine/lists.ts';
import type { Timer } from '../../engine/timeline.ts';
import type { Claimer, ClaimReply } from './claim-reply.ts';
import { HolderSearch } from './holder-search.ts';
import type { ShoalNode, Urgency, Wanted } from './node.ts';
import { outcomeOf } from './outcome.ts';
import { type Answer, type Asker, askNeighbour, type Request } from './server.ts';
import type { Session } from './session.ts';

/** Attempts side by side at neighbours: more would only add load. */
const MOST_ATTEMPTS = 2;

/**
 * One chunk on its way to a node, in the order of the daemon's cascade: neighbours that hold it (with a second one when
 * the first is slow, and outside when both are), then a claim, and what it answers: the registry, or the nodes that are
 * getting it. Every decision is made by the policy code of the daemon; here are only its waits and messages.
 */
export class ChunkGet implements Asker, Claimer {
  readonly #node: ShoalNode;
  readonly #wanted: Wanted;
  readonly #startedMs: number;
  readonly #life: number;
  #urgency: Urgency;
  #waiting: (() => void)[] = [];
  #isOver = false;
  // neighbours
  #search: HolderSearch | undefined;
  #running: Request[] = [];
  #askedOutside = false;
  /** Those that went off as well. */
  #timers: Timer[] = [];
  #cancelOutside: (() => void) | undefined;
  // claims
  #isClaimed = false;
  /** Whom to ask, and until when: the answer to the claim. */
  #holders: ShoalNode[] = [];
  #untilMs = 0;
  #refusals = 0;
  #round = 0;

  constructor(node: ShoalNode, wanted: Wanted, urgency: Urgency) {
    this.#node = node;
    this.#wanted = wanted;
    this.#urgency = urgency;
    this.#startedMs = node.swarm.clock.nowMs();
    this.#life = node.host.life;
  }

  join(urgency: Urgency, done: () => void): void {
    this.#waiting = appended(this.#waiting, done);
    if (urgency !== 'demand' || this.#urgency === 'demand') return;
    this.#urgency = 'demand';
    // The daemon looks now and then whether somebody waits; half of the time between is what it takes on average.
    if (this.#isClaimed && this.#running.length > 0) {
      this.#after(CLAIM_WAIT_LIMITS.lookAgainMs / 2, () => this.#running.length > 0 && this.#afterHolderDelay());
    }
  }

  begin(): void {
    if (this.#node.swarm.nodes.length < 2) {
      this.#outside();
      return;
    }
    if (this.#node.usesClaims && this.#urgency === 'prefetch' && !this.#session.worthAsking()) {
      this.#claim();
      return;
    }
    this.#afterOutsideDelay();
    this.#searchOn();
  }

  get #isGone(): boolean {
    return this.#isOver || !this.#node.host.isUp || this.#node.host.life !== this.#life;
  }

  get #session(): Session {
    return this.#node.session(this.#wanted.layer.blob);
  }

  #after(ms: number, callback: () => void): void {
    const timer = this.#node.swarm.world.timeline.after(ms, () => {
      if (!this.#isGone) callback();
    });
    this.#timers = appended(this.#timers, timer);
  }

  // ── neighbours ──

  /** The next neighbour to ask, also beside one that is slow. */
  #searchOn(): void {
    this.#search ??= new HolderSearch(this.#node, this.#wanted, this.#urgency);
    const search = this.#search;
    if (search.isUnderWay || this.#isGone) return;
    const { maxAsked, maxRefusals } = NEIGHBOUR_LIMITS;
    const refusals = this.#node.usesClaims && this.#urgency === 'prefetch' ? this.#refusals : 0;
    if (search.tried.length >= maxAsked || refusals >= maxRefusals) this.#found(undefined);
    else search.next((holder) => !this.#isGone && this.#found(holder));
  }

  #found(holder: ShoalNode | undefined): void {
    if (holder !== undefined) this.#ask(holder);
    else if (this.#running.length === 0) this.#claim();
  }

  #ask(holder: ShoalNode): void {
    this.#request(holder, 0);
    if (this.#running.length >= MOST_ATTEMPTS || this.#urgency === 'prefetch') return;
    const delayMs = this.#node.hedging.neighbourDelayMs(this.#wanted.chunk.bytes);
    this.#after(Math.max(1, delayMs), () => {
      if (this.#running.length > 0 && this.#running.length < MOST_ATTEMPTS && !this.#isClaimed) this.#searchOn();
    });
  }

  #request(holder: ShoalNode, waitMs: number): void {
    const node = this.#node;
    node.scores.started(holder.id);
    const init = { wanted: this.#wanted, urgency: this.#urgency, waitMs, asker: this };
    this.#running = appended(this.#running, askNeighbour(node, holder, init));
  }

  answered(request: Request, answer: Answer): void {
    removeFrom(this.#running, request);
    this.#note(request.server, answer, request.waitMs);
    if (this.#isGone) return;
    if (answer.kind === 'ok') this.#done();
    else if (request.waitMs > 0) this.#askHolders();
    else if (this.#running.length === 0) this.#searchOn();
  }

  #note(holder: ShoalNode, answer: Answer, waitMs: number): void {
    const { scores, hedging, swarm } = this.#node;
    const { chunk } = this.#wanted;
    scores.ended(holder.id, outcomeOf(answer, chunk.bytes, waitMs), swarm.clock.nowMs());
    if (waitMs === 0 && answer.kind === 'busy') {
      this.#refusals += 1;
      this.#session.answered(false);
    }
    if (answer.kind === 'missing') this.#session.lacks(holder, chunk.row);
    if (answer.kind === 'failed') this.#session.drop(holder);
    if (answer.kind !== 'ok') return;
    if (waitMs === 0) {
      hedging.note('neighbour', chunk.bytes, answer.totalMs);
      this.#session.answered(true);
    }
    this.#session.add(holder);
  }

  /** Outside beside neighbours, when somebody waits longer than outside would take. */
  #afterOutsideDelay(): void {
    const { hedging, swarm } = this.#node;
    const { bytes, count } = this.#wanted.chunk;
    if (this.#urgency === 'prefetch') return;
    this.#after(hedging.outsideDelayMs(bytes), () => {
      if (this.#isClaimed || this.#askedOutside || this.#urgency === 'prefetch') return;
      if (hedging.takeOutside(bytes, swarm.clock.nowMs() - this.#startedMs, count)) this.#outside();
    });
  }

  // ── claims ──

  #claim(): void {
    if (this.#askedOutside) return;
    if (!this.#node.usesClaims) {
      this.#outside();
      return;
    }
    this.#isClaimed = true;
    this.#node.claims.claim(this.#wanted, this);
  }

  replied(reply: ClaimReply): void {
    if (this.#isGone) return;
    if (reply.kind === 'granted') {
      this.#outside();
      return;
    }
    const forMs = Math.min(CLAIM_WAIT_LIMITS.waitMs, this.#leftMs());
    if (forMs <= 0) {
      this.#claimAgain();
      return;
    }
    this.#holders = [...reply.holders];
    this.#untilMs = this.#node.swarm.clock.nowMs() + forMs;
    this.#askHolders();
  }

  #leftMs(): number {
    const { waitMs, prefetchWaitMs } = CLAIM_WAIT_LIMITS;
    const mostMs = this.#urgency === 'prefetch' ? prefetchWaitMs : waitMs;
    return this.#startedMs + mostMs - this.#node.swarm.clock.nowMs();
  }

  /** One after the other; each may keep the request while it gets the chunk itself. */
  #askHolders(): void {
    const { swarm, scores } = this.#node;
    const holders = this.#holders;
    const waitMs = this.#untilMs - swarm.clock.nowMs();
    if (holders.length === 0 || waitMs <= 0) {
      this.#claimAgain();
      return;
    }
    // One that rests comes last: nobody else may have it.
    const willing = holders.findIndex(({ id }) => scores.usable(id, swarm.clock.nowMs()));
    const holder = holders[Math.max(0, willing)] as ShoalNode;
    removeFrom(holders, holder);
    this.#afterHolderDelay();
    this.#request(holder, waitMs);
  }

  #afterHolderDelay(): void {
    const { hedging, swarm } = this.#node;
    const { bytes, count } = this.#wanted.chunk;
    // Whoever comes to wait meanwhile starts this (`join`).
    if (this.#urgency !== 'demand') return;
    this.#after(hedging.holderDelayMs(bytes), () => {
      if (this.#askedOutside || this.#running.length === 0) return;
      if (hedging.takeOutside(bytes, swarm.clock.nowMs() - this.#startedMs, count)) this.#outside();
    });
  }

  #claimAgain(): void {
    if (this.#askedOutside) return;
    const { againMs } = CLAIM_WAIT_LIMITS;
    const pauseMs = againMs[Math.min(this.#round, againMs.length - 1)] as number;
    this.#round += 1;
    if (pauseMs >= this.#leftMs()) this.#outside();
    else this.#after(pauseMs, () => this.#claim());
  }

  // ── the registry, and the end ──

  #outside(): void {
    const { origin, hedging, swarm } = this.#node;
    this.#askedOutside = true;
    const startedMs = swarm.clock.nowMs();
    this.#cancelOutside = origin.get(this.#wanted, () => {
      if (this.#isGone) return;
      if (this.#urgency === 'demand') {
        hedging.note('outside', this.#wanted.chunk.bytes, swarm.clock.nowMs() - startedMs);
      }
      this.#cancelOutside = undefined;
      this.#done();
    });
  }

  #done(): void {
    this.#isOver = true;
    for (const timer of this.#timers) timer.cancel();
    const nowMs = this.#node.swarm.clock.nowMs();
    for (const request of this.#running) {
      const { server, waitMs, askedMs } = request;
      request.cancel();
      // Another source was faster.
      const outcome = waitMs === 0 ? ({ kind: 'slow', afterMs: nowMs - askedMs } as const) : undefined;
      this.#node.scores.ended(server.id, outcome, nowMs);
    }
    this.#cancelOutside?.();
    if (this.#isClaimed) this.#node.claims.settle(this.#wanted, 'held');
    this.#node.keep(this.#wanted.chunk.content);
    for (const each of this.#waiting) each();
  }
}
