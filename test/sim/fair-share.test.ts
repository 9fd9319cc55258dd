import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createRandom } from '../../sim/engine/random.ts';
import { createTimeline } from '../../sim/engine/timeline.ts';
import { createFairNetwork, type FairNetwork, type Link, type Transfer } from '../../sim/network/fair-share.ts';
import { Flow } from '../../sim/network/flow.ts';

const never = { isOver: () => false, signal: new AbortController().signal };

class Told extends Flow {
  readonly arrived: () => void;

  constructor(network: FairNetwork, init: { path: readonly Link[]; bytes: number; done: () => void }) {
    super(network, init.path, init.bytes);
    this.arrived = init.done;
  }
}

function begin(network: FairNetwork, path: readonly Link[], bytes: number, done: () => void): Transfer {
  const flow = new Told(network, { path, bytes, done });
  network.begin(flow);
  return flow;
}

function makeNetwork(tolerance?: number) {
  const timeline = createTimeline();
  const network = createFairNetwork({ nowMs: () => timeline.nowMs() }, tolerance === undefined ? {} : { tolerance });
  timeline.attach(network);
  return { timeline, network };
}

test('a transfer on an idle link takes its bytes divided by the capacity', async () => {
  const { timeline, network } = makeNetwork();
  let doneMs = 0;
  begin(network, [network.link('up', 125_000), network.link('down', 12_500)], 1_250_000, () => {
    doneMs = timeline.nowMs();
  });
  await timeline.run(never);
  assert.equal(doneMs, 100);
});

test('N transfers from one link end together, after N times as long', async () => {
  const { timeline, network } = makeNetwork();
  const up = network.link('up', 1_000);
  const ends: number[] = [];
  for (let node = 0; node < 50; node += 1) {
    begin(network, [up, network.link(`down ${node}`, 1_000)], 10_000, () => ends.push(timeline.nowMs()));
  }
  await timeline.run(never);
  assert.equal(ends.length, 50);
  for (const end of ends) assert.ok(Math.abs(end - 500) < 1e-6, `${end}`);
});

test('what a transfer cannot use because of a narrow link goes to the others', async () => {
  const { timeline, network } = makeNetwork();
  const up = network.link('up', 100);
  const ends = new Map<string, number>();
  begin(network, [up, network.link('narrow', 10)], 1_000, () => ends.set('narrow', timeline.nowMs()));
  begin(network, [up, network.link('wide', 1_000)], 9_000, () => ends.set('wide', timeline.nowMs()));
  await timeline.run(never);
  assert.deepEqual([...ends.values()], [100, 100]);
});

test('a cancelled transfer leaves its share to the others, and says how far it came', async () => {
  const { timeline, network } = makeNetwork();
  const up = network.link('up', 100);
  const given = begin(network, [up], 10_000, () => assert.fail('it was cancelled'));
  let doneMs = 0;
  begin(network, [up], 10_000, () => {
    doneMs = timeline.nowMs();
  });
  timeline.after(50, () => given.cancel());
  await timeline.run(never);
  assert.equal(given.moved(), 2_500);
  assert.equal(doneMs, 125);
  assert.equal(up.carriedBytes(), 12_500);
});

/** Max-min fair rates by progressive filling, from scratch: what the incremental books are held against. */
function exactRates(flows: readonly (readonly Link[])[]): number[] {
  const rates = flows.map(() => 0);
  const open = new Set(flows.keys());
  const left = new Map<Link, number>();
  for (const path of flows) for (const link of path) left.set(link, link.bytesPerMs);
  while (open.size > 0) {
    let step = Number.POSITIVE_INFINITY;
    const users = new Map<Link, number>();
    for (const at of open) for (const link of flows[at] as readonly Link[]) users.set(link, (users.get(link) ?? 0) + 1);
    for (const [link, count] of users) step = Math.min(step, (left.get(link) as number) / count);
    for (const [link, count] of users) left.set(link, (left.get(link) as number) - step * count);
    const full = [...users.keys()].filter((link) => (left.get(link) as number) < 1e-9 * link.bytesPerMs);
    for (const at of [...open]) {
      rates[at] = (rates[at] as number) + step;
      if ((flows[at] as readonly Link[]).some((link) => full.includes(link))) open.delete(at);
    }
  }
  return rates;
}

test('with transfers coming and going the shares stay within the tolerance of max-min fairness, and links within capacity', async () => {
  const worst: number[] = [];
  await fc.assert(
    fc.asyncProperty(fc.nat(), fc.integer({ min: 2, max: 12 }), async (seed, nodes) => {
      const random = createRandom(seed, 'fair');
      const { timeline, network } = makeNetwork();
      const up = Array.from({ length: nodes }, (_, at) => network.link(`up ${at}`, 50 + random.below(200)));
      const down = Array.from({ length: nodes }, (_, at) => network.link(`down ${at}`, 50 + random.below(200)));
      const core = network.link('core', 100 * nodes);
      const flows = new Map<Transfer, readonly Link[]>();
      const start = (): void => {
        const ends = [up[random.below(nodes)] as Link, down[random.below(nodes)] as Link] as const;
        const path = random.next() < 0.5 ? [ends[0], core, ends[1]] : ends;
        const flow: Transfer = begin(network, path, 500 + random.below(5_000), () => {
          flows.delete(flow);
          if (random.next() < 0.9) start();
        });
        flows.set(flow, path);
      };
      for (let count = 0; count < 4 * nodes; count += 1) start();
      for (let round = 0; round < 40 && flows.size > 0; round += 1) {
        await timeline.run({ ...never, isOver: deadline(timeline, 3) });
        const links = [...up, ...down, core];
        for (const link of links) assert.ok(link.rate() <= link.bytesPerMs * (1 + 1e-9), `${link.name} is overfull`);
        const exact = exactRates([...flows.values()]);
        const before = [...flows.keys()].map((flow) => flow.moved());
        const sum = exact.reduce((a, b) => a + b, 0);
        let had = 0;
        for (const link of down) had += link.rate();
        worst.push(had / sum);
        assert.equal(before.length, exact.length);
      }
    }),
    { numRuns: 60 },
  );
  worst.sort((a, b) => a - b);
  const median = worst[Math.floor(worst.length / 2)] as number;
  assert.ok(median > 0.97, `median ${median}`);
  assert.ok((worst[0] as number) > 0.85, `worst ${worst[0]}`);
});

function deadline(timeline: { nowMs(): number; after(ms: number, callback: () => void): unknown }, ms: number) {
  const end = timeline.nowMs() + ms;
  timeline.after(ms, () => {});
  return () => timeline.nowMs() >= end;
}
