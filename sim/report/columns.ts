import type { PolicyResult } from '../result.ts';

/** A column of the table of results: smaller is better. */
export interface Column {
  readonly title: string;
  value(result: PolicyResult): number;
  show(value: number): string;
}

const GIB = 1024 ** 3;
const seconds = (ms: number): string => (ms < 9_995 ? `${(ms / 1_000).toFixed(2)} s` : `${(ms / 1_000).toFixed(1)} s`);
const gibibytes = (bytes: number): string => `${(bytes / GIB).toFixed(2)} GiB`;
const times = (ratio: number): string => ratio.toFixed(2);
const whole = (count: number): string => String(Math.round(count));

/** What the table shows of each policy, in order. */
export const COLUMNS: readonly Column[] = [
  { title: 'p50 start', value: ({ startMs }) => startMs.p50, show: seconds },
  { title: 'p99 start', value: ({ startMs }) => startMs.p99, show: seconds },
  { title: 'p99 ÷ bound', value: ({ startMs, boundMs }) => startMs.p99 / Math.max(1e-9, boundMs.p99), show: times },
  { title: 'all ready', value: ({ totalMs }) => totalMs, show: seconds },
  { title: 'registry', value: ({ bytes }) => bytes.registry, show: gibibytes },
  { title: '÷ read', value: ({ egressRatio }) => egressRatio, show: times },
  { title: 'cross-zone', value: ({ crossZoneBytes }) => crossZoneBytes, show: gibibytes },
  { title: 'messages/node', value: ({ messagesPerNode }) => messagesPerNode.mean, show: whole },
  { title: 'busiest sent', value: ({ servedPerNode }) => servedPerNode.max, show: gibibytes },
  { title: 'not ready', value: ({ failed }) => failed, show: whole },
];
