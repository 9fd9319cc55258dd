import { MESSAGE_BYTES } from '../cost-model.ts';
import type { Transfer } from './fair-share.ts';
import type { Host } from './host.ts';
import type { Ended, World } from './world.ts';

/** The registry: answers ranged requests, each after its latency, in the order in which its rate limit lets them in. */
export interface Registry {
  readonly host: Host;
  /** Asks for bytes; `over` is called when the last one arrived at `to`, or when `to` died. */
  fetch(to: Host, bytes: number, over: (how: Ended) => void): Fetch;
}

/** A request that can be given up. */
export interface Fetch {
  moved(): number;
  cancel(): void;
}

/** `requestsPerS` 0: no limit. */
export function createRegistry(world: World, init: { host: Host; latencyMs: number; requestsPerS: number }): Registry {
  const { host, latencyMs, requestsPerS } = init;
  const gapMs = requestsPerS === 0 ? 0 : 1_000 / requestsPerS;
  let freeAtMs = 0;
  return {
    host,
    fetch(to, bytes, over) {
      let transfer: Transfer | undefined;
      const { life } = to;
      const nowMs = world.timeline.nowMs();
      world.counters.requestsAtRegistry += 1;
      world.counters.messages.request += 1;
      world.counters.messageBytes += MESSAGE_BYTES.request;
      to.messagesOut += 1;
      const turnMs = Math.max(nowMs, freeAtMs);
      freeAtMs = turnMs + gapMs;
      const waitMs = turnMs - nowMs + 2 * world.latencyMs(to, host) + latencyMs;
      const timer = world.timeline.after(waitMs, () => {
        if (!to.isUp || to.life !== life) over('lost');
        else transfer = world.move(host, to, bytes, 'registry', { moveOver: over });
      });
      return {
        moved: () => transfer?.moved() ?? 0,
        cancel() {
          timer.cancel();
          transfer?.cancel();
        },
      };
    },
  };
}
