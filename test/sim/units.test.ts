import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PolicyResult } from '../../sim/result.ts';
import { runPolicy } from '../../sim/run.ts';
import { parseScenario } from '../../sim/scenario/parse.ts';
import { unitChunks } from '../../sim/workload/units.ts';

const CROWD = `title = "What does it cost to move neighbouring chunks together?"

[nodes]
count = 40

[image.app]
size_mib = 256
compressed = 0.45

[arrival.all]
image = "app"

[shoal]
hints = true
`;

async function run(text: string): Promise<PolicyResult> {
  const scenario = parseScenario(text, { name: 'crowd.toml' });
  return await runPolicy(scenario, 'shoal', { path: 'crowd.toml', signal: new AbortController().signal });
}

function differs(name: string, coarse: number, exact: number, most: number): void {
  const by = Math.abs(coarse / exact - 1);
  assert.ok(by <= most, `${name}: ${coarse} instead of ${exact}, ${(100 * by).toFixed(1)} %`);
}

test('units of 4 MiB give start times within 20 %, of 2 MiB within 8 %, and the same bytes, as single chunks do', async () => {
  const exact = await run(`${CROWD}\n[simulation]\nunit_kib = 0\n`);
  for (const [kib, most] of [
    [2_048, 0.08],
    [4_096, 0.2],
  ] as const) {
    const coarse = await run(`${CROWD}\n[simulation]\nunit_kib = ${kib}\n`);
    differs(`p50 with ${kib} KiB`, coarse.startMs.p50, exact.startMs.p50, most);
    differs(`p99 with ${kib} KiB`, coarse.startMs.p99, exact.startMs.p99, most);
    differs(`egress with ${kib} KiB`, coarse.bytes.registry, exact.bytes.registry, 0.05);
    differs(`bytes from neighbours with ${kib} KiB`, coarse.bytes.neighbour, exact.bytes.neighbour, 0.05);
    assert.ok(coarse.events < 0.75 * exact.events, `${coarse.events} of ${exact.events} events`);
  }
});

test('small scenarios move single chunks, large ones as much as a claim region or a file holds', () => {
  const unitOf = (changes: string): number => unitChunks(parseScenario(`${CROWD}\n${changes}`, { name: 'crowd.toml' }));
  assert.equal(unitOf(''), 1);
  const large = (image: string): number =>
    unitChunks(
      parseScenario(CROWD.replace('count = 40', 'count = 5000').replace('size_mib = 256', image), { name: 'c.toml' }),
    );
  assert.equal(large('size_mib = 256'), 4);
  assert.equal(large('size_mib = 256\nfile_kib = 2048'), 2);
  assert.equal(large('size_mib = 256\nchunk_kib = 64'), 64);
  assert.equal(large('size_mib = 256\nchunk_kib = 4096'), 1);
  assert.equal(unitOf('[simulation]\nunit_kib = 2048\n'), 2);
});

test('a layer that is no multiple of the unit keeps its size', async () => {
  const text = CROWD.replace('size_mib = 256', 'size_mib = 21\nlayers = 3');
  const { bytes } = await run(`${text.replace('compressed = 0.45\n', '')}\n[simulation]\nunit_kib = 4096\n`);
  assert.equal(Math.round(bytes.registry), 21 * 1024 * 1024);
});
