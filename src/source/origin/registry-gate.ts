import type { Clock } from '../../clock.ts';
import {
  createRegistryPace,
  type PacedRequest,
  type PaceOutcome,
  type RegistryPace,
} from '../../core/policy/registry-pace.ts';
import { hasCode, ShoalError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { Urgency } from '../../store/chunk-store.ts';

/** A request that wants to pass; `urgency` is read anew while it waits, for it may change. */
export interface GateRequest {
  readonly registry: string;
  readonly urgency?: Urgency | undefined;
  readonly signal: AbortSignal;
}

/** Lets requests to each registry through at the pace the registry bears: demand first, then in the order they came. */
export interface RegistryGate {
  /**
   * Runs `work` when it is its turn; it may say when an answer begins to come. Rejects with the signal's reason when that fires before, and with
   * REGISTRY_RESPONSE when the registry wants to be left alone for longer than anybody waits. While it cannot be
   * reached, nobody waits beyond `giveUpAtMs` (not given: what is left of the budget): rejects with the last failure.
   */
  pass<T>(request: GateRequest, work: (progress: () => void) => Promise<T>, giveUpAtMs?: number): Promise<T>;
  /** How long a request to this registry that just failed should go on trying. */
  patienceMs(registry: string): number;
  /** Turns away all who wait. */
  close(): void;
}

/** Tuning of the gate. */
export interface RegistryGateInit {
  /** Requests at a time, per registry. */
  readonly most: number;
  /** Longest rest that a request waits for. */
  readonly longestWaitMs: number;
  /** How long a request goes on trying when the registry cannot be reached. */
  readonly budgetMs: number;
  /** False: a registry that fails is asked at once again; for those who try once and go elsewhere. */
  readonly rests?: boolean;
}

/** Registries whose pace is remembered; those that matter are in use. */
const MAX_LANES = 256;

export function createRegistryGate(
  components: { clock: Clock; log: Logger; random: () => number },
  init: RegistryGateInit,
): RegistryGate {
  return new Gate(components, init);
}

interface Waiter {
  readonly request: GateRequest;
  readonly start: (paced: PacedRequest) => void;
  readonly reject: (error: unknown) => void;
}

interface Lane {
  readonly registry: string;
  readonly pace: RegistryPace;
  readonly waiting: Set<Waiter>;
  lastFailure: unknown;
  /** What the log was told last. */
  told: 'answers' | 'busy' | 'away';
  /** When the lane is looked at again by itself. */
  wakeAtMs: number | undefined;
}

class Gate implements RegistryGate {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #random: () => number;
  readonly #init: RegistryGateInit;
  readonly #lanes = new Map<string, Lane>();
  readonly #closing = new AbortController();

  constructor(components: { clock: Clock; log: Logger; random: () => number }, init: RegistryGateInit) {
    this.#clock = components.clock;
    this.#log = components.log;
    this.#random = components.random;
    this.#init = init;
  }

  async pass<T>(request: GateRequest, work: (progress: () => void) => Promise<T>, giveUpAtMs?: number): Promise<T> {
    const lane = this.#lane(request.registry);
    const paced = await this.#turn(lane, request, giveUpAtMs);
    let outcome: PaceOutcome = 'answered';
    let askedMs: number | undefined;
    try {
      return await work(() => {
        lane.pace.progress(paced);
        this.#serve(lane);
      });
    } catch (error) {
      outcome = request.signal.aborted ? 'unknown' : outcomeOf(error);
      if (outcome === 'away') lane.lastFailure = error;
      askedMs = error instanceof ShoalError ? error.context.retryAfterMs : undefined;
      throw error;
    } finally {
      lane.pace.end(paced, this.#clock.nowMs(), outcome, askedMs);
      this.#tell(lane, outcome);
      this.#serve(lane);
    }
  }

  patienceMs(registry: string): number {
    const { budgetMs } = this.#init;
    return this.#lanes.get(registry)?.pace.patienceMs(this.#clock.nowMs(), budgetMs) ?? budgetMs;
  }

  close(): void {
    this.#closing.abort();
    for (const lane of this.#lanes.values()) {
      this.#reject(lane, () => new ShoalError('UNAVAILABLE', 'the registry client is closed'));
    }
  }

  /** One line when a registry becomes busy or is gone, and one when it is back. */
  #tell(lane: Lane, outcome: PaceOutcome): void {
    if (this.#init.rests === false) return;
    const isAway = outcome === 'away' && lane.pace.isAway(this.#clock.nowMs());
    const now = outcome === 'throttled' ? 'busy' : isAway ? 'away' : outcome === 'answered' ? 'answers' : lane.told;
    if (now === lane.told) return;
    lane.told = now;
    const { registry, lastFailure } = lane;
    if (now === 'answers') this.#log.info('the registry answers again', { registry });
    else if (now === 'busy') this.#log.warn('the registry is busy, requests to it wait', { registry });
    else this.#log.warn('the registry cannot be reached', { registry, why: (lastFailure as Error).message });
  }

  #lane(registry: string): Lane {
    let lane = this.#lanes.get(registry);
    if (lane === undefined) {
      const { most, rests } = this.#init;
      const pace = createRegistryPace({ most, random: this.#random, ...(rests === undefined ? {} : { rests }) });
      lane = { registry, pace, waiting: new Set(), lastFailure: undefined, told: 'answers', wakeAtMs: undefined };
      this.#lanes.set(registry, lane);
      if (this.#lanes.size > MAX_LANES) this.#forget(lane);
    }
    return lane;
  }

  /** Drops lanes that remember nothing of use. */
  #forget(kept: Lane): void {
    const nowMs = this.#clock.nowMs();
    for (const [key, lane] of this.#lanes) {
      if (lane !== kept && lane.waiting.size === 0 && lane.pace.isIdle(nowMs)) this.#lanes.delete(key);
    }
  }

  #turn(lane: Lane, request: GateRequest, giveUpAtMs: number | undefined): Promise<PacedRequest> {
    return new Promise((resolve, reject) => {
      const { signal } = request;
      if (signal.aborted) return reject(signal.reason);
      const onAbort = (): void => {
        lane.waiting.delete(waiter);
        reject(signal.reason);
      };
      const waiter: Waiter = {
        request,
        start(paced) {
          signal.removeEventListener('abort', onAbort);
          resolve(paced);
        },
        reject(error) {
          signal.removeEventListener('abort', onAbort);
          reject(error);
        },
      };
      signal.addEventListener('abort', onAbort, { once: true });
      lane.waiting.add(waiter);
      this.#serve(lane);
      if (lane.waiting.has(waiter)) this.#limitPatience(lane, waiter, giveUpAtMs);
    });
  }

  /** A registry that came back, or is only busy, is waited for all the same. */
  #limitPatience(lane: Lane, waiter: Waiter, giveUpAtMs: number | undefined): void {
    const nowMs = this.#clock.nowMs();
    const untilMs = giveUpAtMs ?? (lane.pace.isAway(nowMs) ? nowMs + this.patienceMs(lane.registry) : undefined);
    if (untilMs === undefined) return;
    const giveUp = (): void => {
      if (!lane.pace.isAway(this.#clock.nowMs()) || !lane.waiting.delete(waiter)) return;
      waiter.reject(lane.lastFailure);
    };
    const signal = AbortSignal.any([waiter.request.signal, this.#closing.signal]);
    this.#clock.sleep(Math.max(0, untilMs - nowMs), { signal }).then(giveUp, () => {});
  }

  #serve(lane: Lane): void {
    for (let next = first(lane); next !== undefined; next = first(lane)) {
      const urgency = next.request.urgency ?? 'demand';
      const waitMs = lane.pace.waitMs(this.#clock.nowMs(), urgency);
      if (waitMs === undefined) return;
      if (waitMs > this.#init.longestWaitMs) {
        this.#turnAway(lane, waitMs);
        return;
      }
      if (waitMs > 0) {
        this.#wakeIn(lane, waitMs);
        return;
      }
      lane.waiting.delete(next);
      next.start(lane.pace.start(urgency));
    }
  }

  #turnAway(lane: Lane, waitMs: number): void {
    const seconds = Math.ceil(waitMs / 1000);
    const what = `${lane.registry} asked not to be asked for another ${seconds} s`;
    this.#reject(lane, () => new ShoalError('REGISTRY_RESPONSE', what, { status: 429, retryAfterMs: waitMs }));
  }

  #reject({ waiting }: Lane, error: () => ShoalError): void {
    for (const { reject } of waiting) reject(error());
    waiting.clear();
  }

  #wakeIn(lane: Lane, waitMs: number): void {
    const wakeAtMs = this.#clock.nowMs() + waitMs;
    if (lane.wakeAtMs !== undefined && lane.wakeAtMs <= wakeAtMs) return;
    lane.wakeAtMs = wakeAtMs;
    const woken = (): void => {
      if (lane.wakeAtMs !== wakeAtMs) return;
      lane.wakeAtMs = undefined;
      this.#serve(lane);
    };
    this.#clock.sleep(waitMs, { signal: this.#closing.signal }).then(woken, () => {});
  }
}

function first({ waiting }: Lane): Waiter | undefined {
  for (const waiter of waiting) if (waiter.request.urgency !== 'prefetch') return waiter;
  for (const waiter of waiting) return waiter;
  return undefined;
}

function outcomeOf(error: unknown): PaceOutcome {
  if (hasCode(error, 'SOURCE_FAILED')) return 'away';
  if (!(error instanceof ShoalError)) return 'unknown';
  const { status } = error.context;
  if (status === 429 || status === 503) return 'throttled';
  if (status !== undefined && (status >= 500 || status === 408)) return 'away';
  // Refused, not found, wrong: an answer all the same. What never got out says nothing.
  return error.code === 'URL_REFUSED' || error.code === 'UNAVAILABLE' ? 'unknown' : 'answered';
}
