import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTimeline } from '../../sim/engine/timeline.ts';
import type { Host } from '../../sim/network/host.ts';
import { Machine } from '../../sim/network/machine.ts';
import type { PolicyResult } from '../../sim/result.ts';
import { runPolicy } from '../../sim/run.ts';
import { type Override, parseScenario } from '../../sim/scenario/parse.ts';
import type { PolicyName } from '../../sim/scenario/scenario.ts';
import { POLICY_NAMES } from '../../sim/scenario/schema.ts';
import { ShoalError } from '../../src/errors.ts';

/** Sixteen reads of next to nothing, and 100 ms of work before each. */
const THINKING = `title = "How long?"

[nodes]
count = 8
latency_ms = 0
up_mbit_per_s = 100_000
down_mbit_per_s = 100_000

[registry]
egress_mbit_per_s = 100_000
latency_ms = 0

[image.app]
size_mib = 1
layers = 1
chunk_kib = 64
file_kib = 64
think_ms = 100

[arrival.all]
image = "app"
`;
const THINK_MS = 1_600;

async function run(changes: Record<string, unknown>, policy: PolicyName = 'shoal', text = THINKING) {
  const overrides = Object.entries(changes) as unknown as Override[];
  const scenario = parseScenario(text, { name: 'test.toml', overrides });
  return await runPolicy(scenario, policy, { path: 'test.toml', signal: new AbortController().signal });
}

function near(actual: number, expected: number, tolerance = 0.03): void {
  assert.ok(Math.abs(actual - expected) <= tolerance * expected, `${actual} is not ${expected} ± ${100 * tolerance} %`);
}

function refusal(line: string): string {
  try {
    parseScenario(THINKING.replace('count = 8', `count = 8\n${line}`), { name: 's.toml' });
  } catch (error) {
    assert.ok(error instanceof ShoalError);
    return error.message;
  }
  return 'accepted';
}

test('eight nodes that compute on two cores of one machine take four times as long as one, whatever the policy', async () => {
  for (const policy of ['shoal', 'plain', 'whole-layer'] as const) {
    near((await run({ 'nodes.per_machine': 8, 'nodes.count': 1 }, policy)).totalMs, THINK_MS, 0.05);
    near((await run({ 'nodes.per_machine': 8 }, policy)).totalMs, 4 * THINK_MS, 0.05);
  }
});

test('nodes of one machine do not wait for processors that are enough for all, nor those of other machines', async () => {
  near((await run({ 'nodes.per_machine': 8, 'nodes.cores': 9 })).totalMs, THINK_MS, 0.05);
  near((await run({ 'nodes.per_machine': 2 })).totalMs, THINK_MS, 0.05);
  near((await run({})).totalMs, THINK_MS, 0.05);
});

test('a machine lies in one zone', async () => {
  const zones = `${THINKING}\n[zone.a]\nlatency_ms = 0\n\n[zone.b]\nlatency_ms = 0\n`;
  near((await run({ 'nodes.per_machine': 8 }, 'shoal', zones)).totalMs, 2 * THINK_MS, 0.05);
});

test('starts on shared machines give the same result bit for bit, also when nodes die', async () => {
  const churn = `${THINKING}\n[churn.some]\nshare = 0.5\nat_s = 0.3\nover_s = 1\nback_after_s = 1\n`;
  const changes = { 'nodes.per_machine': 4, 'shoal.fresh': true, 'nodes.cores': 1.5 };
  for (const policy of POLICY_NAMES) {
    const [first, again]: PolicyResult[] = [await run(changes, policy, churn), await run(changes, policy, churn)];
    assert.equal(JSON.stringify(first), JSON.stringify(again), policy);
    assert.equal(first?.failed, 0, policy);
  }
});

test('daemons that have just begun take processors longer', async () => {
  const busy = { 'nodes.per_machine': 8, 'image.app.think_ms': 0, 'image.app.size_mib': 16 };
  const [warm, fresh] = [await run(busy), await run({ ...busy, 'shoal.fresh': true })];
  assert.ok(fresh.totalMs > 2 * warm.totalMs, `${fresh.totalMs} ms, ${warm.totalMs} ms`);
  // They are shoal's: others take what they took.
  const [plain, same] = [await run(busy, 'plain'), await run({ ...busy, 'shoal.fresh': true }, 'plain')];
  assert.equal(same.totalMs, plain.totalMs);
});

test('wrong numbers of nodes on a machine are refused by name and line', () => {
  assert.equal(refusal('per_machine = 0'), 's.toml line 5: nodes.per_machine must be >= 1');
  assert.equal(refusal('per_machine = 1.5'), 's.toml line 5: nodes.per_machine must be integer');
  assert.equal(refusal('per_machin = 2'), 's.toml line 5: unknown key nodes.per_machin; did you mean per_machine?');
});

/** A machine, containers that tell when they are done, and a way to let the time pass. */
function setup(cores: number) {
  const timeline = createTimeline();
  const machine = new Machine(timeline, cores);
  const told: [name: string, ms: number][] = [];
  const host = (name: string): Host => ({ name }) as Host;
  const work = (on: Host, ms: number, wants = 1): void =>
    machine.work(on, ms, {
      cores: wants,
      done: () => told.push([on.name, Math.round(timeline.nowMs() * 1_000) / 1_000]),
    });
  const toEnd = (): Promise<void> => timeline.run({ isOver: () => false, signal: new AbortController().signal });
  return { timeline, machine, told, host, work, toEnd };
}

test('a message does not wait for containers, and they get later what it took', async () => {
  const { timeline, machine, told, host, work, toEnd } = setup(1);
  work(host('a'), 100);
  work(host('b'), 100);
  timeline.after(10, () => assert.equal(machine.occupy(3), 3));
  timeline.after(11, () => assert.equal(machine.occupy(3), 5));
  await toEnd();
  assert.deepEqual(told, [
    ['a', 206],
    ['b', 206],
  ]);
});

test('containers share what is left: who comes later, wants little or less than all slows others down accordingly', async () => {
  const { timeline, told, host, work, toEnd } = setup(1);
  work(host('a'), 100);
  timeline.after(50, () => work(host('b'), 100));
  timeline.after(1_000, () => work(host('idle'), 100, 0.25));
  timeline.after(1_000, () => work(host('half'), 100, 0.5));
  timeline.after(2_000, () => work(host('wide'), 100, 2));
  await toEnd();
  assert.deepEqual(told, [
    ['a', 150],
    ['b', 200],
    ['idle', 1_100],
    ['half', 1_100],
    ['wide', 2_200],
  ]);
});

test('daemons keep processors busy one by one, and a part of a processor works as much slower', async () => {
  const { machine, told, host, work, toEnd } = setup(2);
  assert.deepEqual(
    [10, 30, 10, 10].map((ms) => machine.occupy(ms)),
    [10, 30, 20, 30],
  );
  work(host('a'), 10);
  await toEnd();
  assert.deepEqual(told, [['a', 40]]);
  assert.equal(setup(0.5).machine.occupy(10), 20);
});

test('what a node that died was doing is void, and leaves its processors to others', async () => {
  const { timeline, machine, told, host, work, toEnd } = setup(1);
  const dead = host('dead');
  work(dead, 100);
  work(host('a'), 100);
  timeline.after(100, () => machine.drop(dead));
  await toEnd();
  assert.deepEqual(told, [['a', 150]]);
});
