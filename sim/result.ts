import type { ByteSource, MessageKind } from './network/host.ts';
import type { PolicyName } from './scenario/scenario.ts';

/** Quantiles of a set of numbers. */
export interface Spread {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
  readonly mean: number;
}

/** What one policy came to. Times in ms, sizes in bytes. */
export interface PolicyResult {
  readonly policy: PolicyName;
  readonly starts: number;
  /** Starts that were not ready at the end of the run, or whose node died for good. */
  readonly failed: number;
  readonly startMs: Spread;
  /** The same for the bound that no policy can beat. */
  readonly boundMs: Spread;
  /** From the first start to the last that was ready. */
  readonly totalMs: number;
  readonly bytes: Readonly<Record<ByteSource, number>>;
  /** Distinct bytes that the started containers read, as the registry sends them. */
  readonly readBytes: number;
  /** Bytes from the registry per distinct byte read. */
  readonly egressRatio: number;
  readonly registryRequests: number;
  readonly crossZoneBytes: number;
  readonly messages: Readonly<Record<MessageKind, number>>;
  readonly messageBytes: number;
  /** Control messages that nodes took in. */
  readonly messagesPerNode: Spread;
  /** Bytes that nodes sent to others. */
  readonly servedPerNode: Spread;
  /** Sorted start times and bounds, at most CURVE_POINTS of each. */
  readonly startCurveMs: readonly number[];
  readonly boundCurveMs: readonly number[];
  /** Bytes that nodes sent, largest first, at most CURVE_POINTS. */
  readonly servedCurve: readonly number[];
  readonly samples: readonly Sample[];
  readonly zones: readonly ZoneUse[];
  /** What the simulation itself took. */
  readonly events: number;
  readonly reviews: number;
  readonly realMs: number;
}

/** Counters at one moment. */
export interface Sample {
  readonly atMs: number;
  readonly registryBytes: number;
  readonly neighbourBytes: number;
  readonly messages: number;
  readonly ready: number;
}

/** How a zone's links were used, in parts of their capacity over the whole run. */
export interface ZoneUse {
  readonly name: string;
  readonly up: number | undefined;
  readonly down: number | undefined;
  readonly upBytes: number;
  readonly downBytes: number;
}

/** Points of a curve in a result: more cannot be seen. */
export const CURVE_POINTS = 400;

/** A whole comparison: what is written with `--json` and shown in the report. */
export interface Comparison {
  readonly title: string;
  readonly scenario: string;
  readonly seed: number;
  readonly nodes: number;
  readonly results: readonly PolicyResult[];
}

/** Quantiles by the nearest rank; zeros for nothing. */
export function spreadOf(values: readonly number[]): Spread {
  const sorted = Float64Array.from(values).sort();
  const at = (part: number): number => sorted[Math.max(0, Math.ceil(part * sorted.length) - 1)] ?? 0;
  let sum = 0;
  for (const value of sorted) sum += value;
  return { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1), mean: sorted.length === 0 ? 0 : sum / sorted.length };
}

/** At most CURVE_POINTS of sorted values, first and last included. */
export function thinned(sorted: readonly number[]): number[] {
  if (sorted.length <= CURVE_POINTS) return [...sorted];
  const step = (sorted.length - 1) / (CURVE_POINTS - 1);
  return Array.from({ length: CURVE_POINTS }, (_, at) => sorted[Math.round(at * step)] as number);
}
