import { CLAIM_WAIT_LIMITS } from '../../../src/core/policy/claim-wait-limits.ts';
import { NEIGHBOUR_LIMITS } from '../../../src/core/policy/neighbour-limits.ts';
import type { Outcome } from '../../../src/core/policy/neighbour-score.ts';
import type { Timer } from '../../engine/timeline.ts';
import type { ShoalNode, Urgency, Wanted } from './node.ts';
import { type Answer, askNeighbour, type Request } from './server.ts';
import type { Session } from './session.ts';
import type { ClaimReply } from './swarm.ts';

interface Attempt {
  readonly holder: ShoalNode;
  readonly waitMs: number;
  readonly startedMs: number;
}

/** Attempts side by side at neighbours: more would only add load. */
const MOST_ATTEMPTS = 2;

/**
 * One chunk on its way to a node, in the order of the daemon's cascade: neighbours that hold it (with a second one when
 * the first is slow, and outside when both are), then a claim, and what it answers: the registry, or the nodes that are
 * getting it. Every decision is made by the policy code of the daemon; here are only its waits and messages.
 */
export class ChunkGet {
  readonly #node: ShoalNode;
  readonly #wanted: Wanted;
  readonly #startedMs: number;
  readonly #life: number;
  #urgency: Urgency;
  readonly #waiting: (() => void)[] = [];
  #isOver = false;
  // neighbours
  readonly #tried: ShoalNode[] = [];
  readonly #running = new Map<Request, Attempt>();
  #isSearching = false;
  #hasLooked = false;
  #askedOutside = false;
  readonly #timers = new Set<Timer>();
  #cancelOutside: (() => void) | undefined;
  // claims
  #isClaimed = false;
  #round = 0;

  constructor(node: ShoalNode, wanted: Wanted, urgency: Urgency) {
    this.#node = node;
    this.#wanted = wanted;
    this.#urgency = urgency;
    this.#startedMs = node.swarm.clock.nowMs();
    this.#life = node.host.life;
  }

  join(urgency: Urgency, done: () => void): void {
    if (urgency === 'demand') this.#urgency = 'demand';
    this.#waiting.push(done);
  }

  begin(): void {
    if (this.#node.swarm.nodes.length < 2) {
      this.#outside();
      return;
    }
    this.#afterOutsideDelay();
    this.#search();
  }

  get #isGone(): boolean {
    return this.#isOver || !this.#node.host.isUp || this.#node.host.life !== this.#life;
  }

  get #session(): Session {
    return this.#node.session(this.#wanted.layer.blob);
  }

  #after(ms: number, callback: () => void): Timer {
    const timer = this.#node.swarm.world.timeline.after(ms, () => {
      this.#timers.delete(timer);
      if (!this.#isGone) callback();
    });
    this.#timers.add(timer);
    return timer;
  }

  // ── neighbours ──

  /** The next neighbour to ask, also beside one that is slow. */
  #search(): void {
    if (this.#isSearching || this.#isGone) return;
    if (this.#tried.length >= NEIGHBOUR_LIMITS.maxAsked) {
      this.#found(undefined);
      return;
    }
    this.#isSearching = true;
    const known = this.#byBitmap();
    if (known !== undefined) {
      this.#found(known);
      return;
    }
    this.#session.settled(this.#wanted.chunk.row, () => {
      if (this.#isGone) return;
      const settled = this.#byBitmap();
      if (settled !== undefined) {
        this.#found(settled);
        return;
      }
      this.#session.refresh();
      this.#byDirectory();
    });
  }

  #byBitmap(): ShoalNode | undefined {
    const { chunk } = this.#wanted;
    const holders = this.#session.holders(chunk.row, this.#tried);
    return this.#node.scores.choose(holders, chunk.bytes, this.#node.swarm.clock.nowMs());
  }

  #byDirectory(): void {
    const { node, content, session } = {
      node: this.#node,
      content: this.#wanted.chunk.content,
      session: this.#session,
    };
    const { nowMs } = node.swarm.clock;
    if (this.#hasLooked || node.nobody.has(String(content), nowMs()) || !session.worthFinding()) {
      this.#found(undefined);
      return;
    }
    this.#hasLooked = true;
    node.swarm.find(node, content, (holders) => {
      if (this.#isGone) return;
      session.foundAny(holders.length > 0);
      if (holders.length === 0) node.nobody.add(String(content), nowMs());
      // Answers of several keepers come in no order: the first of them is asked.
      const start = node.swarm.random.below(Math.max(1, holders.length));
      for (let step = 0; step < holders.length; step += 1) {
        const holder = holders[(start + step) % holders.length] as ShoalNode;
        session.add(holder);
        if (!this.#tried.includes(holder) && node.scores.usable(holder.id, nowMs())) {
          this.#found(holder);
          return;
        }
      }
      this.#found(undefined);
    });
  }

  #found(holder: ShoalNode | undefined): void {
    this.#isSearching = false;
    if (holder !== undefined) this.#ask(holder);
    else if (this.#running.size === 0) this.#claim();
  }

  #ask(holder: ShoalNode): void {
    this.#tried.push(holder);
    this.#request(holder, {
      waitMs: 0,
      failed: () => {
        if (this.#running.size === 0) this.#search();
      },
    });
    if (this.#running.size >= MOST_ATTEMPTS || this.#urgency === 'prefetch') return;
    const delayMs = this.#node.hedging.neighbourDelayMs(this.#wanted.chunk.bytes);
    this.#after(Math.max(1, delayMs), () => {
      if (this.#running.size > 0 && this.#running.size < MOST_ATTEMPTS && !this.#isClaimed) this.#search();
    });
  }

  #request(holder: ShoalNode, init: { waitMs: number; failed: () => void }): void {
    const node = this.#node;
    node.scores.started(holder.id);
    const request = askNeighbour(node, holder, {
      wanted: this.#wanted,
      urgency: this.#urgency,
      waitMs: init.waitMs,
      over: (answer) => {
        this.#running.delete(request);
        this.#note(holder, answer, init.waitMs);
        if (this.#isGone) return;
        if (answer.kind === 'ok') this.#done();
        else init.failed();
      },
    });
    this.#running.set(request, { holder, waitMs: init.waitMs, startedMs: node.swarm.clock.nowMs() });
  }

  #note(holder: ShoalNode, answer: Answer, waitMs: number): void {
    const { scores, hedging, swarm } = this.#node;
    const { chunk } = this.#wanted;
    scores.ended(holder.id, outcomeOf(answer, chunk.bytes, waitMs), swarm.clock.nowMs());
    if (answer.kind === 'missing') this.#session.lacks(holder, chunk.row);
    if (answer.kind === 'failed') this.#session.drop(holder);
    if (answer.kind !== 'ok') return;
    if (waitMs === 0) hedging.note('neighbour', chunk.bytes, answer.totalMs);
    this.#session.add(holder);
  }

  /** Outside beside neighbours, when somebody waits longer than outside would take. */
  #afterOutsideDelay(): void {
    const { hedging, swarm } = this.#node;
    const { bytes } = this.#wanted.chunk;
    if (this.#urgency === 'prefetch') return;
    this.#after(hedging.outsideDelayMs(bytes), () => {
      if (this.#isClaimed || this.#askedOutside || this.#urgency === 'prefetch') return;
      if (hedging.takeOutside(bytes, swarm.clock.nowMs() - this.#startedMs, 1)) this.#outside();
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
    this.#node.claims.claim(this.#wanted, (reply) => {
      if (!this.#isGone) this.#follow(reply);
    });
  }

  #follow(reply: ClaimReply): void {
    if (reply.kind === 'granted') {
      this.#outside();
      return;
    }
    const forMs = Math.min(CLAIM_WAIT_LIMITS.waitMs, this.#leftMs());
    if (forMs <= 0) this.#claimAgain();
    else this.#askHolders([...reply.holders], this.#node.swarm.clock.nowMs() + forMs);
  }

  #leftMs(): number {
    const { waitMs, prefetchWaitMs } = CLAIM_WAIT_LIMITS;
    const mostMs = this.#urgency === 'prefetch' ? prefetchWaitMs : waitMs;
    return this.#startedMs + mostMs - this.#node.swarm.clock.nowMs();
  }

  /** One after the other; each may keep the request while it gets the chunk itself. */
  #askHolders(holders: ShoalNode[], untilMs: number): void {
    const { swarm, scores } = this.#node;
    const nowMs = swarm.clock.nowMs();
    // One that rests comes last: nobody else may have it.
    const willing = holders.findIndex(({ id }) => scores.usable(id, nowMs));
    const [holder] = holders.splice(Math.max(0, willing), 1);
    if (holder === undefined || nowMs >= untilMs) {
      this.#claimAgain();
      return;
    }
    this.#afterHolderDelay();
    this.#request(holder, { waitMs: untilMs - nowMs, failed: () => this.#askHolders(holders, untilMs) });
  }

  #afterHolderDelay(): void {
    const { hedging, swarm } = this.#node;
    const { bytes } = this.#wanted.chunk;
    const isDemand = this.#urgency === 'demand';
    this.#after(isDemand ? hedging.holderDelayMs(bytes) : CLAIM_WAIT_LIMITS.lookAgainMs, () => {
      if (this.#askedOutside || this.#running.size === 0) return;
      if (!isDemand) this.#afterHolderDelay();
      else if (hedging.takeOutside(bytes, swarm.clock.nowMs() - this.#startedMs, 1)) this.#outside();
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
    for (const [request, { holder, waitMs, startedMs }] of this.#running) {
      request.cancel();
      // Another source was faster.
      const outcome = waitMs === 0 ? ({ kind: 'slow', afterMs: nowMs - startedMs } as const) : undefined;
      this.#node.scores.ended(holder.id, outcome, nowMs);
    }
    this.#cancelOutside?.();
    if (this.#isClaimed) this.#node.claims.settle(this.#wanted, 'held');
    this.#node.keep(this.#wanted.chunk.content);
    for (const each of this.#waiting) each();
  }
}

function outcomeOf(answer: Answer, bytes: number, waitMs: number): Outcome {
  switch (answer.kind) {
    case 'ok': {
      const { firstByteMs, totalMs } = answer;
      return {
        kind: 'ok',
        bytes,
        firstByteMs: waitMs === 0 ? firstByteMs : undefined,
        transferMs: totalMs - firstByteMs,
      };
    }
    case 'busy':
      return { kind: 'busy', retryAfterMs: answer.retryAfterMs };
    case 'missing':
      return { kind: 'missing' };
    case 'failed':
      return { kind: 'failed' };
  }
}
