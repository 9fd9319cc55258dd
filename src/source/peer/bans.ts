import type { Clock } from '../../clock.ts';

/** Peers that are refused for a time. */
export interface Bans {
  /** Bans of a longer end win. */
  add(id: string, init: { reason: string; forMs: number }): void;
  has(id: string): boolean;
  /** Those in effect. */
  list(): readonly { readonly id: string; readonly reason: string; readonly leftMs: number }[];
}

/** Bans kept: as many as peers may be known; the one that ends first leaves. */
const BANS_MAX = 2_000;

/** No bans yet. */
export function createBans(components: { clock: Pick<Clock, 'nowMs'> }): Bans {
  const { clock } = components;
  const bans = new Map<string, { reason: string; untilMs: number }>();

  function makeRoom(): void {
    let first: string | undefined;
    for (const [id, { untilMs }] of bans) {
      if (first === undefined || untilMs < (bans.get(first)?.untilMs ?? 0)) first = id;
    }
    if (first !== undefined) bans.delete(first);
  }

  return {
    add(id, { reason, forMs }) {
      const untilMs = clock.nowMs() + forMs;
      if ((bans.get(id)?.untilMs ?? 0) >= untilMs) return;
      if (bans.size >= BANS_MAX && !bans.has(id)) makeRoom();
      bans.set(id, { reason, untilMs });
    },
    has(id) {
      const ban = bans.get(id);
      if (ban === undefined) return false;
      if (ban.untilMs > clock.nowMs()) return true;
      bans.delete(id);
      return false;
    },
    list() {
      const nowMs = clock.nowMs();
      return [...bans]
        .filter(([, { untilMs }]) => untilMs > nowMs)
        .map(([id, { reason, untilMs }]) => ({ id, reason, leftMs: untilMs - nowMs }));
    },
  };
}
