/** Label values of one series, in the order of the metric's label names. */
export type LabelValues = readonly string[];

/** What is known of a series that its owner counts by itself; read when the metrics are scraped. */
export interface Reading {
  readonly labels?: LabelValues;
  readonly value: number;
}

/** The same for a histogram: observations per bucket (not cumulative; one more than bounds, the last takes the rest). */
export interface HistogramReading {
  readonly labels?: LabelValues;
  readonly counts: readonly number[];
  readonly sum: number;
}

interface Description {
  /** `shoal_…`, with its unit and, for counters, `_total` at the end. */
  readonly name: string;
  readonly help: string;
  readonly labels?: readonly string[];
}

/** A set of metrics that renders as Prometheus text (exposition format 0.0.4). Names must be new; RangeError if not. */
export interface MetricsRegistry {
  /** A counter or gauge whose values are asked for at each scrape. */
  read(description: Description & { readonly type: 'counter' | 'gauge'; readonly read: () => Iterable<Reading> }): void;
  /** A histogram whose buckets are asked for at each scrape. */
  readHistogram(
    description: Description & { readonly buckets: readonly number[]; readonly read: () => Iterable<HistogramReading> },
  ): void;
  render(): string;
}

/** The type Prometheus expects in Content-Type. */
export const METRICS_CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

const NAME = /^shoal_[a-z0-9_]+$/;
/** Series of one metric; those beyond are left out, so that no input can grow the answer without end. */
const MAX_SERIES = 1_000;

/** An empty registry. */
export function createMetricsRegistry(): MetricsRegistry {
  const metrics = new Map<string, () => string[]>();

  function register({ name, help }: Description, type: string, lines: () => Iterable<string>): void {
    if (!NAME.test(name) || metrics.has(name)) throw new RangeError(`metric name ${name} is taken or not shoal_…`);
    metrics.set(name, () => [`# HELP ${name} ${help.replaceAll('\n', ' ')}`, `# TYPE ${name} ${type}`, ...lines()]);
  }

  return {
    read(description) {
      const { name, labels: names, type, read } = description;
      register(description, type, () =>
        firstOf(read()).map(({ labels, value }) => `${name}${labelText(names, labels)} ${value}`),
      );
    },
    readHistogram(description) {
      register(description, 'histogram', () =>
        firstOf(description.read()).flatMap((reading) => bucketLines(description, reading)),
      );
    },
    render() {
      return `${[...metrics.values()].flatMap((lines) => lines()).join('\n')}\n`;
    },
  };
}

function firstOf<T>(series: Iterable<T>): T[] {
  return Array.from(series).slice(0, MAX_SERIES);
}

/** `{name="value",…}`; empty without labels. */
function labelText(names: readonly string[] = [], values: LabelValues = [], more = ''): string {
  if (names.length !== values.length) throw new RangeError(`${values.length} label values for ${names.length} labels`);
  const parts = names.map((name, index) => `${name}="${escapeLabel(values[index] as string)}"`);
  if (more !== '') parts.push(more);
  return parts.length === 0 ? '' : `{${parts.join(',')}}`;
}

function escapeLabel(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}

function bucketLines(
  { name, labels, buckets }: Description & { readonly buckets: readonly number[] },
  reading: HistogramReading,
): string[] {
  let total = 0;
  const lines = buckets.map((bound, index) => {
    total += reading.counts[index] ?? 0;
    return `${name}_bucket${labelText(labels, reading.labels, `le="${bound}"`)} ${total}`;
  });
  total += reading.counts[buckets.length] ?? 0;
  const plain = labelText(labels, reading.labels);
  lines.push(`${name}_bucket${labelText(labels, reading.labels, 'le="+Inf"')} ${total}`);
  return [...lines, `${name}_sum${plain} ${reading.sum}`, `${name}_count${plain} ${total}`];
}
