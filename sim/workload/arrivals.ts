import type { Random } from '../engine/random.ts';
import type { Timeline } from '../engine/timeline.ts';
import type { ArrivalSpec, Scenario } from '../scenario/scenario.ts';

/** Lets containers start as the arrivals of a scenario say. `start` gets a node's number and calls back when ready. */
export function scheduleArrivals(
  components: { timeline: Timeline; random: Random },
  scenario: Scenario,
  start: (node: number, image: string, ready: () => void) => void,
): void {
  for (const [name, arrival] of Object.entries(scenario.arrival)) {
    const random = components.random.fork(`arrival ${name}`);
    const nodes = random.shuffle(Array.from({ length: scenario.nodes.count }, (_, at) => at));
    nodes.length = arrival.nodes ?? scenario.nodes.count;
    SCHEDULES[arrival.kind]({ timeline: components.timeline, random }, { arrival, nodes, start });
  }
}

interface Schedule {
  readonly arrival: ArrivalSpec;
  readonly nodes: readonly number[];
  readonly start: (node: number, image: string, ready: () => void) => void;
}

type Scheduler = (components: { timeline: Timeline; random: Random }, schedule: Schedule) => void;

const nothing = (): void => {};

const SCHEDULES: Record<ArrivalSpec['kind'], Scheduler> = {
  'all-at-once'({ timeline }, { arrival, nodes, start }) {
    for (const node of nodes) timeline.after(1_000 * arrival.atS, () => start(node, arrival.image, nothing));
  },
  burst({ timeline, random }, { arrival, nodes, start }) {
    for (const node of nodes) {
      const delayMs = 1_000 * (arrival.atS + random.next() * (arrival.overS ?? 0));
      timeline.after(delayMs, () => start(node, arrival.image, nothing));
    }
  },
  poisson({ timeline, random }, { arrival, nodes, start }) {
    let atMs = 1_000 * arrival.atS;
    for (const node of nodes) {
      timeline.after(atMs, () => start(node, arrival.image, nothing));
      atMs += random.exponential(1_000 / (arrival.perS as number));
    }
  },
  /** As many as the surge allows at a time; each that is ready makes room for the next. */
  rolling({ timeline }, { arrival, nodes, start }) {
    let next = 0;
    const startNext = (): void => {
      const node = nodes[next];
      if (node === undefined) return;
      next += 1;
      start(node, arrival.image, () => timeline.after(1_000 * arrival.pauseS, startNext));
    };
    const atOnce = Math.max(1, Math.floor(arrival.surge * nodes.length));
    timeline.after(1_000 * arrival.atS, () => {
      for (let lane = 0; lane < atOnce; lane += 1) startNext();
    });
  },
};
