import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PolicyResult } from '../../sim/result.ts';
import { runPolicy } from '../../sim/run.ts';
import { type Override, parseScenario } from '../../sim/scenario/parse.ts';
import type { PolicyName } from '../../sim/scenario/scenario.ts';
import { POLICY_NAMES } from '../../sim/scenario/schema.ts';

const BASE = `title = "Does it hold?"

[nodes]
count = 8
latency_ms = 0

[registry]
egress_mbit_per_s = 80
latency_ms = 0

[image.app]
size_mib = 32
layers = 2

[arrival.all]
image = "app"
`;
const MIB = 1024 * 1024;

async function run(policy: PolicyName, changes: Record<string, unknown> = {}, text = BASE): Promise<PolicyResult> {
  const overrides = Object.entries(changes) as unknown as Override[];
  const scenario = parseScenario(text, { name: 'test.toml', overrides });
  return await runPolicy(scenario, policy, { path: 'test.toml', signal: new AbortController().signal });
}

function near(actual: number, expected: number, tolerance: number): void {
  assert.ok(Math.abs(actual - expected) <= tolerance * expected, `${actual} is not ${expected} ± ${100 * tolerance} %`);
}

test('one node on one link takes the bytes divided by the capacity, for every policy', async () => {
  for (const policy of ['plain', 'shoal', 'neighbours', 'whole-layer'] as const) {
    const { startMs, bytes } = await run(policy, { 'nodes.count': 1 });
    assert.equal(Math.round(bytes.registry), 32 * MIB, policy);
    // 32 MiB at 10 MB/s; what comes on top is the processors' work on the last layer or chunk.
    const wireMs = (32 * MIB) / 10_000;
    assert.ok(startMs.max >= wireMs && startMs.max < wireMs * 1.06, `${policy}: ${startMs.max} ms, wire ${wireMs} ms`);
  }
});

test('a star of N plain pulls takes N times as long, and N times the bytes', async () => {
  const { startMs, bytes, egressRatio } = await run('plain');
  near(startMs.p50, (8 * 32 * MIB) / 10_000, 0.03);
  assert.equal(Math.round(bytes.registry), 8 * 32 * MIB);
  assert.equal(Math.round(egressRatio), 8);
});

test('bytes are conserved: what the nodes needed is what the sources sent, and nobody received more than was sent', async () => {
  for (const policy of POLICY_NAMES) {
    const { bytes, servedPerNode, failed } = await run(policy);
    assert.equal(failed, 0);
    const received = bytes.registry + bytes.seed + bytes.neighbour;
    const needed = 8 * 32 * MIB;
    assert.ok(received >= needed - 1, `${policy}: ${received} of ${needed}`);
    near(servedPerNode.mean * 8 + 1, bytes.neighbour + 1, 1e-6);
    if (policy === 'plain') assert.equal(Math.round(received), needed);
  }
});

test('no policy beats the fluid bound, with equal links or slow nodes, with zones, with shared layers', async () => {
  const worlds: [Record<string, unknown>, string][] = [
    [{}, BASE],
    [{ 'nodes.count': 40, 'registry.egress_mbit_per_s': 10_000 }, BASE],
    [{ 'nodes.up_mbit_per_s': 20, 'registry.egress_mbit_per_s': 200 }, BASE],
    [{}, `${BASE}\n[nodes.group.slow]\nshare = 0.25\ndown_mbit_per_s = 10\nup_mbit_per_s = 10\n`],
    [{}, `${BASE}\n[zone.a]\ndown_mbit_per_s = 40\n\n[zone.b]\nup_mbit_per_s = 30\n`],
    [
      {},
      BASE.replace(
        '[arrival',
        '[image.new]\nsize_mib = 32\nlayers = 2\nshares_with = "app"\nshared_layers = 1\n\n[arrival.later]\nimage = "new"\nat_s = 60\n\n[arrival',
      ),
    ],
  ];
  for (const [changes, text] of worlds) {
    for (const policy of POLICY_NAMES) {
      const { startCurveMs, boundCurveMs } = await run(policy, changes, text);
      for (const [at, ms] of startCurveMs.entries()) {
        assert.ok(ms >= (boundCurveMs[at] as number) * (1 - 1e-9), `${policy}: ${ms} < ${boundCurveMs[at]} ms`);
      }
    }
  }
});

test('the same seed gives the same result bit for bit, another seed another', async () => {
  const churn = `${BASE}\n[churn.some]\nshare = 0.3\nat_s = 2\nover_s = 3\nback_after_s = 5\n`;
  for (const policy of POLICY_NAMES) {
    const changes = { 'image.app.order_skew': 0.5 };
    const [first, again, other] = [
      await run(policy, changes, churn),
      await run(policy, changes, churn),
      await run(policy, { ...changes, seed: 2 }, churn),
    ];
    assert.equal(JSON.stringify(first), JSON.stringify(again), policy);
    assert.notEqual(JSON.stringify(first), JSON.stringify(other), policy);
  }
});

test('claims keep the registry from sending the same chunk to everybody', async () => {
  const changes = { 'nodes.count': 30, 'shoal.readahead': false };
  const shoal = await run('shoal', changes);
  const neighbours = await run('neighbours', changes);
  assert.ok(shoal.egressRatio < 1.2, `${shoal.egressRatio}`);
  assert.ok(neighbours.egressRatio > 2 * shoal.egressRatio, `${neighbours.egressRatio}`);
});

test('a start that reads whole files, but not all of them, takes from the registry little but those', async () => {
  const changes = { 'image.app.size_mib': 128, 'image.app.read_share': 0.5, 'registry.egress_mbit_per_s': 1_000 };
  const { egressRatio } = await run('shoal', changes);
  assert.ok(egressRatio >= 1 && egressRatio < 1.1, `${egressRatio}`);
  const units = await run('shoal', { ...changes, 'simulation.unit_kib': 4_096 });
  assert.ok(units.egressRatio >= 1 && units.egressRatio < 1.1, `units: ${units.egressRatio}`);
});

test('a second image costs only the bytes that the first one lacks', async () => {
  const text = `${BASE}
[image.new]
size_mib = 32
layers = 2
shares_with = "app"
shared_layers = 1

[arrival.later]
image = "new"
at_s = 200
`;
  const { bytes } = await run('shoal', { 'nodes.count': 1 }, text);
  assert.equal(Math.round(bytes.registry), 48 * MIB);
});

test('a rolling update never has more nodes starting than its surge allows', async () => {
  const text = BASE.replace('image = "app"', 'image = "app"\nkind = "rolling"\nsurge = 0.25');
  const { startMs, totalMs } = await run('plain', { 'nodes.count': 8 }, text);
  // Two at a time, four rounds: each round takes twice what one node alone would.
  near(startMs.p50, (2 * 32 * MIB) / 10_000, 0.03);
  near(totalMs, (8 * 32 * MIB) / 10_000, 0.05);
});

test('starts on nodes that die for good count as not ready, and the others are', async () => {
  const churn = `${BASE}\n[churn.some]\nshare = 0.25\nat_s = 1\n`;
  for (const policy of POLICY_NAMES) {
    const { failed, starts } = await run(policy, {}, churn);
    assert.deepEqual([policy, failed, starts], [policy, 2, 8]);
  }
});

test('a limited request rate at the registry spaces requests out', async () => {
  const { totalMs } = await run('plain', { 'registry.requests_per_s': 1, 'registry.egress_mbit_per_s': 100_000 });
  assert.ok(totalMs > 15_000, `${totalMs}`);
});

test('a read does not wait for a directory that is slower than its search may take', async () => {
  const text = BASE.replace('latency_ms = 0', 'latency_ms = 100').replace(
    'size_mib = 32\nlayers = 2',
    'size_mib = 1\nlayers = 1\nfile_kib = 1024',
  );
  const { startMs } = await run('shoal', { 'nodes.count': 4, 'registry.egress_mbit_per_s': 1_000 }, text);
  // The claim and the chunk take most of it; the answer of the directory would take 340 ms more.
  assert.ok(startMs.p50 < 900, `${startMs.p50}`);
});
