import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createMetricsRegistry } from '../../src/metrics.ts';

test('counters, gauges and histograms render as Prometheus text', () => {
  const registry = createMetricsRegistry();
  registry.read({
    type: 'counter',
    name: 'shoal_reads_total',
    help: 'Reads.',
    labels: ['kind'],
    read: () => [
      { labels: ['cold'], value: 2 },
      { labels: ['warm'], value: 3 },
    ],
  });
  registry.read({ type: 'gauge', name: 'shoal_open_files', help: 'Open files.', read: () => [{ value: 7 }] });
  registry.readHistogram({
    name: 'shoal_wait_seconds',
    help: 'Waits.',
    buckets: [0.1, 1],
    read: () => [{ counts: [2, 1, 1], sum: 3.65 }],
  });
  assert.equal(
    registry.render(),
    [
      '# HELP shoal_reads_total Reads.',
      '# TYPE shoal_reads_total counter',
      'shoal_reads_total{kind="cold"} 2',
      'shoal_reads_total{kind="warm"} 3',
      '# HELP shoal_open_files Open files.',
      '# TYPE shoal_open_files gauge',
      'shoal_open_files 7',
      '# HELP shoal_wait_seconds Waits.',
      '# TYPE shoal_wait_seconds histogram',
      'shoal_wait_seconds_bucket{le="0.1"} 2',
      'shoal_wait_seconds_bucket{le="1"} 3',
      'shoal_wait_seconds_bucket{le="+Inf"} 4',
      'shoal_wait_seconds_sum 3.65',
      'shoal_wait_seconds_count 4',
      '',
    ].join('\n'),
  );
});

test('values that others count are read at each scrape', () => {
  const registry = createMetricsRegistry();
  let bytes = 1;
  registry.read({
    type: 'counter',
    name: 'shoal_bytes_total',
    help: 'Bytes.',
    labels: ['source'],
    read: () => [{ labels: ['origin'], value: bytes }],
  });
  registry.readHistogram({
    name: 'shoal_fault_seconds',
    help: 'Faults.',
    buckets: [1, 2],
    read: () => [{ counts: [1, 0, 2], sum: 9 }],
  });
  assert.match(registry.render(), /^shoal_bytes_total\{source="origin"\} 1$/m);
  bytes = 5;
  assert.match(registry.render(), /^shoal_bytes_total\{source="origin"\} 5$/m);
  assert.match(registry.render(), /^shoal_fault_seconds_bucket\{le="2"\} 1\n.*le="\+Inf"\} 3$/m);
});

test('label values are escaped, so that an image name can not forge a line', () => {
  const registry = createMetricsRegistry();
  const read = () => [{ labels: ['a"b\\c\nshoal_y 9'], value: 1 }];
  registry.read({ type: 'gauge', name: 'shoal_x', help: 'X.', labels: ['image'], read });
  assert.match(registry.render(), /^shoal_x\{image="a\\"b\\\\c\\nshoal_y 9"\} 1$/m);
});

test('series are bounded, whatever the label values are', () => {
  const registry = createMetricsRegistry();
  const read = () => Array.from({ length: 5_000 }, (_, index) => ({ labels: [String(index)], value: 1 }));
  registry.read({ type: 'counter', name: 'shoal_many_total', help: 'Many.', labels: ['name'], read });
  assert.equal(registry.render().match(/^shoal_many_total\{/gm)?.length, 1_000);
});

test('a name that is taken or foreign, and a wrong number of labels are programming errors', () => {
  const registry = createMetricsRegistry();
  const named = (name: string) => ({ type: 'gauge' as const, name, help: 'A.', read: () => [{ value: 1 }] });
  registry.read({ ...named('shoal_a'), labels: ['x'] });
  assert.throws(() => registry.read(named('shoal_a')), RangeError);
  assert.throws(() => registry.read(named('other')), RangeError);
  assert.throws(() => registry.render(), RangeError);
});
