import type { Timeline, Timer } from '../engine/timeline.ts';
import type { Host, Zone } from './host.ts';

/** Work that is this close to its end is done: sums of small steps are not exact. */
const NEAR_MS = 1e-6;

/** A container that works: how many processors it keeps busy, and what happens when it has worked for its time. */
interface Job {
  readonly host: Host;
  /** Progress of the machine's containers at which it is done. */
  readonly goal: number;
  readonly cores: number;
  readonly done: () => void;
}

/**
 * Processors that several hosts share. Short work of daemons goes first, in the order in which it comes, each piece on
 * the processor that is free first: when it is done is known when it is given. Containers share the processors that are
 * left, all of them slowed down alike when they want more. So work is never lost or done twice, a container's long job
 * does not hold up a message, and what is left out is that daemons wait for containers now and then.
 */
export class Machine {
  readonly #timeline: Timeline;
  /** Of each processor: when it has done what daemons gave it, ms; the first to be free comes first. */
  readonly #freeAtMs: number[];
  /** Work a processor does per ms: below 1 where the machine has a part of one only. */
  readonly #speed: number;
  /** In the order in which they will be done. */
  #jobs: Job[] = [];
  /** Processors that the containers would keep busy together. */
  #wanted = 0;
  /** Ms that a container which has worked since the beginning got done, as of `#atMs`. */
  #progress = 0;
  #atMs = 0;
  #timer: Timer | undefined;

  constructor(timeline: Timeline, cores: number) {
    this.#timeline = timeline;
    const whole = Math.ceil(cores);
    this.#freeAtMs = new Array<number>(whole).fill(0);
    this.#speed = cores / whole;
  }

  /** Gives a daemon's work, ms of one processor; answers the ms until it is done. */
  occupy(ms: number): number {
    const nowMs = this.#timeline.nowMs();
    this.#advance();
    const endMs = Math.max(nowMs, this.#freeAtMs[0] as number) + ms / this.#speed;
    this.#freeAtMs.shift();
    let place = this.#freeAtMs.length;
    while (place > 0 && (this.#freeAtMs[place - 1] as number) > endMs) place -= 1;
    this.#freeAtMs.splice(place, 0, endMs);
    return endMs - nowMs;
  }

  /** A container works for `ms` on idle processors, `cores` of them. `done` is not called when its host dies before. */
  work(host: Host, ms: number, init: { cores: number; done: () => void }): void {
    this.#advance();
    const job: Job = { host, goal: this.#progress + ms, ...init };
    let place = this.#jobs.length;
    while (place > 0 && (this.#jobs[place - 1] as Job).goal > job.goal) place -= 1;
    this.#jobs.splice(place, 0, job);
    this.#wanted += job.cores;
    this.#arm();
  }

  /** What containers of this host were doing is void. */
  drop(host: Host): void {
    this.#advance();
    this.#keep(this.#jobs.filter((job) => job.host !== host));
  }

  /** Summed anew each time: differences of parts would not come to nothing in the end. */
  #keep(jobs: Job[]): void {
    this.#jobs = jobs;
    this.#wanted = jobs.reduce((sum, { cores }) => sum + cores, 0);
    this.#arm();
  }

  #advance(): void {
    const { atMs, progress } = this.#walk(this.#timeline.nowMs(), Number.POSITIVE_INFINITY);
    this.#atMs = atMs;
    this.#progress = progress;
  }

  /** Daemons' work that comes later makes it later still: then it rings too early, and is set anew. */
  #arm(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    const [first] = this.#jobs;
    if (first === undefined) return;
    const { atMs } = this.#walk(Number.POSITIVE_INFINITY, first.goal);
    this.#timer = this.#timeline.after(atMs - this.#timeline.nowMs(), () => this.#ring());
  }

  #ring(): void {
    this.#timer = undefined;
    this.#advance();
    const more = this.#jobs.findIndex(({ goal }) => goal > this.#progress + NEAR_MS);
    const count = more === -1 ? this.#jobs.length : more;
    const over = this.#jobs.slice(0, count);
    this.#keep(this.#jobs.slice(count));
    for (const { done } of over) done();
  }

  /** From where the containers are until a time, or until they have come so far. */
  #walk(untilMs: number, goal: number): { atMs: number; progress: number } {
    let atMs = this.#atMs;
    let progress = this.#progress;
    let idle = 0;
    for (;;) {
      while (idle < this.#freeAtMs.length && (this.#freeAtMs[idle] as number) <= atMs) idle += 1;
      const nextMs = Math.min(untilMs, this.#freeAtMs[idle] ?? Number.POSITIVE_INFINITY);
      const perMs = this.#wanted === 0 ? 0 : Math.min(1, (idle * this.#speed) / this.#wanted);
      const goalMs = perMs === 0 ? Number.POSITIVE_INFINITY : atMs + (goal - progress) / perMs;
      if (goalMs <= nextMs) return { atMs: goalMs, progress: goal };
      progress += perMs * (nextMs - atMs);
      atMs = nextMs;
      if (atMs === untilMs) return { atMs, progress };
    }
  }
}

/** Each node's machine, `perMachine` nodes of a zone on each; none where each node is a machine of its own. */
export function machinesOf(
  timeline: Timeline,
  places: readonly Zone[],
  { perMachine, cores }: { perMachine: number; cores: number },
): (Machine | undefined)[] {
  const filling = new Map<Zone, { machine: Machine; nodes: number }>();
  return places.map((zone) => {
    if (perMachine === 1) return undefined;
    let last = filling.get(zone);
    if (last === undefined || last.nodes === perMachine) last = { machine: new Machine(timeline, cores), nodes: 0 };
    filling.set(zone, last);
    last.nodes += 1;
    return last.machine;
  });
}
