import type { SourceStatus } from '../control/status.ts';
import type { Digest } from '../core/digest.ts';
import { LATENCY_BUCKETS_MS, type SourceCounters } from '../store/count.ts';
import { emptyTally, type FetchLedger, type SourceTally } from '../store/ledger.ts';

/** What each source did for these layers together. */
export function sourcesOf(
  ledger: Pick<FetchLedger, 'tallies'>,
  { layers }: { readonly layers: readonly { readonly digest: Digest }[] },
): Record<string, SourceStatus> {
  const sums: Record<string, SourceTally> = {};
  for (const { digest } of layers) {
    for (const [name, tally] of Object.entries(ledger.tallies(digest))) {
      sums[name] ??= emptyTally();
      add(sums[name], tally);
    }
  }
  return Object.fromEntries(Object.entries(sums).map(([name, tally]) => [name, tallyStatus(tally)]));
}

/** What one source did over all layers. */
export function totalStatus(counters: SourceCounters): SourceStatus {
  const { requests, chunks, bytes, missing, errors, latency, latencySumMs } = counters;
  const slowest = latency.findLastIndex((count) => count > 0);
  const slowestMs = slowest === -1 ? 0 : (LATENCY_BUCKETS_MS[slowest] ?? Number.MAX_SAFE_INTEGER);
  return { requests, chunks, bytes, missing, errors: { ...errors }, meanMs: mean(latencySumMs, chunks), slowestMs };
}

function tallyStatus({ requests, chunks, bytes, missing, errors, servedMs, slowestMs }: SourceTally): SourceStatus {
  const meanMs = mean(servedMs, chunks);
  return { requests, chunks, bytes, missing, errors: { ...errors }, meanMs, slowestMs: rounded(slowestMs) };
}

function add(sum: SourceTally, tally: SourceTally): void {
  sum.requests += tally.requests;
  sum.chunks += tally.chunks;
  sum.bytes += tally.bytes;
  sum.missing += tally.missing;
  sum.servedMs += tally.servedMs;
  sum.slowestMs = Math.max(sum.slowestMs, tally.slowestMs);
  for (const [code, count] of Object.entries(tally.errors) as [keyof SourceTally['errors'], number][]) {
    sum.errors[code] = (sum.errors[code] ?? 0) + count;
  }
}

function mean(sumMs: number, count: number): number {
  return count === 0 ? 0 : rounded(sumMs / count);
}

/** Tenths of a millisecond: finer is noise. */
function rounded(ms: number): number {
  return Math.round(10 * ms) / 10;
}
