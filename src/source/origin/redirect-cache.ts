import type { Clock } from '../../clock.ts';
import type { ApprovedUrl } from '../url-policy.ts';
import { REGISTRY_LIMITS } from './limits.ts';

/** Where blobs were last found, for a short while: saves the registry a question per ranged read. */
export class RedirectCache {
  readonly #clock: Clock;
  readonly #entries = new Map<string, { readonly target: ApprovedUrl; readonly untilMs: number }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get(key: string): ApprovedUrl | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    if (this.#clock.nowMs() < entry.untilMs) return entry.target;
    this.#entries.delete(key);
    return undefined;
  }

  /** Remembers a target from now on; one that is already known keeps its time, for its signature ages all the same. */
  set(key: string, target: ApprovedUrl): void {
    if (this.get(key) === target) return;
    this.#entries.delete(key);
    this.#entries.set(key, { target, untilMs: this.#clock.nowMs() + REGISTRY_LIMITS.redirectTtlMs });
    const oldest = this.#entries.keys().next().value;
    if (this.#entries.size > REGISTRY_LIMITS.maxRedirects && oldest !== undefined) this.#entries.delete(oldest);
  }

  drop(key: string): void {
    this.#entries.delete(key);
  }
}
