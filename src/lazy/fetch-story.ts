import type { FetchStory, PeerUse } from '../control/explain.ts';
import type { FetchRecord } from '../store/ledger.ts';

/** Name under which the cascade knows the swarm. */
export const NEIGHBOUR = 'neighbour';

/** A fetch as it is reported. */
export function story({ at, digest, blob, bytes, urgency, steps }: FetchRecord): FetchStory {
  const served = steps.find(({ outcome }) => outcome === 'served');
  return {
    at: new Date(at).toISOString(),
    digest,
    layer: blob,
    bytes,
    urgency,
    source: served?.source ?? null,
    steps: steps.map((step) => ({ ...step, ms: Math.round(10 * step.ms) / 10 })),
  };
}

/** What each neighbour and mirror answered in these fetches, those that gave most first. */
export function peersIn(records: readonly FetchRecord[]): PeerUse[] {
  const uses = new Map<string, { source: string; chunks: number; others: Record<string, number>; at: number }>();
  for (const { steps, at } of records) {
    for (const { source, peer, outcome } of steps) {
      if (peer === undefined) continue;
      const use = uses.get(peer) ?? { source, chunks: 0, others: {}, at };
      uses.set(peer, use);
      use.at = Math.max(use.at, at);
      if (outcome === 'served') use.chunks += 1;
      else use.others[outcome] = (use.others[outcome] ?? 0) + 1;
    }
  }
  return [...uses]
    .map(([peer, { source, chunks, others, at }]) => ({
      source,
      peer,
      chunks,
      others,
      lastAt: new Date(at).toISOString(),
    }))
    .sort((a, b) => b.chunks - a.chunks);
}

/** Why this fetch did not come from a neighbour; undefined when it did or is not remembered. */
export function whyNoNeighbour(record: FetchRecord | undefined, init: { hasSwarm: boolean }): string | undefined {
  if (record === undefined) return undefined;
  const asked = record.steps.filter(({ source }) => source === NEIGHBOUR);
  if (asked.some(({ outcome }) => outcome === 'served')) return undefined;
  const served = record.steps.find(({ outcome }) => outcome === 'served');
  if (served?.source === 'local') return 'another layer on this node had it';
  const last = asked.at(-1);
  if (last === undefined) return init.hasSwarm ? 'no neighbour was asked' : 'the swarm is off';
  return last.why ?? last.outcome;
}
