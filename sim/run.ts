import { ShoalError } from '../src/errors.ts';
import { FRESH, WARM } from './cost-model.ts';
import { createRandom } from './engine/random.ts';
import { createTimeline } from './engine/timeline.ts';
import { type BoundedStart, fluidBound } from './fluid-bound.ts';
import type { Host } from './network/host.ts';
import { createWorld, type World } from './network/world.ts';
import { createPolicy } from './policies/index.ts';
import type { Policy } from './policies/policy.ts';
import { type PolicyResult, spreadOf, thinned, type ZoneUse } from './result.ts';
import { createSampler } from './sampler.ts';
import { bytesPerMs, type PolicyName, type Scenario } from './scenario/scenario.ts';
import { scheduleArrivals } from './workload/arrivals.ts';
import { scheduleChurn } from './workload/churn.ts';
import { createCatalog, type ReadPlan, type SimImage } from './workload/image.ts';
import { makeImages } from './workload/images.ts';
import { createReadPlans } from './workload/reads.ts';

/** How far a run is. */
export interface Progress {
  readonly policy: PolicyName;
  readonly nowMs: number;
  readonly ready: number;
  readonly starts: number;
}

/** What a run may use and tell. */
export interface RunInit {
  /** The scenario's file: its traces are beside it. */
  readonly path: string;
  readonly signal: AbortSignal;
  readonly onProgress?: (progress: Progress) => void;
  /** Real time, ms, for the report of what the simulation took; never used inside it. */
  readonly realNowMs?: () => number;
}

interface StartRecord extends BoundedStart {
  readonly host: Host;
  readonly told: () => void;
  arrivalMs: number;
  readyMs: number | undefined;
  /** Bumped when it begins again after its node came back. */
  attempt: number;
}

/** Runs one policy on a scenario. Throws SOURCE_FAILED when it gets stuck, CONFIG_INVALID for a bad trace. */
export async function runPolicy(scenario: Scenario, name: PolicyName, init: RunInit): Promise<PolicyResult> {
  const realNowMs = init.realNowMs ?? (() => 0);
  const beganMs = realNowMs();
  const run = new Run(scenario, name, init);
  await run.toEnd();
  return run.result(realNowMs() - beganMs);
}

class Run {
  readonly #scenario: Scenario;
  readonly #name: PolicyName;
  readonly #init: RunInit;
  readonly #timeline = createTimeline();
  readonly #world: World;
  readonly #images: ReadonlyMap<string, SimImage>;
  readonly #policy: Policy;
  readonly #plans = new Map<SimImage, ReturnType<typeof createReadPlans>>();
  readonly #records: StartRecord[] = [];
  readonly #byHost = new Map<Host, StartRecord[]>();
  readonly #expected: number;
  readonly #random;
  #ready = 0;
  #lost = 0;

  constructor(scenario: Scenario, name: PolicyName, init: RunInit) {
    this.#scenario = scenario;
    this.#name = name;
    this.#init = init;
    const random = createRandom(scenario.seed);
    this.#random = random;
    const isShoal = name === 'shoal' || name === 'neighbours';
    this.#world = createWorld(scenario, this.#timeline, scenario.shoal.fresh && isShoal ? FRESH : WARM);
    const catalog = createCatalog();
    this.#images = makeImages({ catalog, random }, scenario, { path: init.path });
    const images = [...this.#images.values()];
    this.#policy = createPolicy(name, {
      world: this.#world,
      scenario,
      images,
      random: random.fork('policy'),
      contents: catalog.contents,
      blobs: catalog.blobs,
    });
    for (const image of images) this.#plans.set(image, createReadPlans(image));
    this.#expected = Object.values(scenario.arrival).reduce(
      (sum, { nodes }) => sum + (nodes ?? scenario.nodes.count),
      0,
    );
  }

  async toEnd(): Promise<void> {
    const world = this.#world;
    const { limitS } = this.#scenario;
    let isLate = false;
    this.#timeline.after(1_000 * limitS, () => {
      isLate = true;
    });
    const isOver = (): boolean => isLate || this.#ready + this.#lost >= this.#expected;
    scheduleArrivals({ timeline: this.#timeline, random: this.#random }, this.#scenario, (node, image, told) =>
      this.#begin(node, this.#images.get(image) as SimImage, told),
    );
    scheduleChurn({ world, random: this.#random }, this.#scenario, {
      died: (host, forGood) => this.#died(host, forGood),
      returned: (host, keepsDisk) => this.#returned(host, keepsDisk),
    });
    this.#sampler = createSampler(world, { ready: () => this.#ready, isOver });
    const onTurn = (): void => this.#tell();
    await this.#timeline.run({ isOver, signal: this.#init.signal, onTurn });
    this.#tell();
    if (!isOver())
      throw new ShoalError('SOURCE_FAILED', `${this.#name}: nothing happens any more, and not all is ready`);
  }

  #sampler: ReturnType<typeof createSampler> | undefined;

  #tell(): void {
    const { onProgress } = this.#init;
    onProgress?.({ policy: this.#name, nowMs: this.#timeline.nowMs(), ready: this.#ready, starts: this.#expected });
  }

  #begin(node: number, image: SimImage, told: () => void): void {
    const host = this.#world.nodes[node] as Host;
    const plan = this.#plans.get(image)?.(() => this.#random.fork(`reads ${image.name} ${node}`)) as ReadPlan;
    const arrivalMs = this.#timeline.nowMs();
    const record: StartRecord = { node, image, plan, host, told, arrivalMs, readyMs: undefined, attempt: 0 };
    this.#records.push(record);
    const own = this.#byHost.get(host) ?? [];
    this.#byHost.set(host, own);
    own.push(record);
    if (host.isUp) this.#launch(record);
  }

  #launch(record: StartRecord): void {
    const { attempt } = record;
    const { host, image, plan } = record;
    const ready = (): void => {
      if (record.readyMs !== undefined || record.attempt !== attempt) return;
      record.readyMs = this.#timeline.nowMs();
      this.#ready += 1;
      record.told();
    };
    this.#policy.start({ host, image, plan, ready });
  }

  #died(host: Host, forGood: boolean): void {
    this.#policy.died(host);
    for (const record of this.#byHost.get(host) ?? []) {
      if (record.readyMs !== undefined) continue;
      record.attempt += 1;
      if (forGood) this.#lost += 1;
    }
  }

  #returned(host: Host, keepsDisk: boolean): void {
    this.#policy.returned(host, { keepsDisk });
    for (const record of this.#byHost.get(host) ?? []) {
      if (record.readyMs !== undefined) continue;
      record.arrivalMs = this.#timeline.nowMs();
      this.#launch(record);
    }
  }

  result(realMs: number): PolicyResult {
    const world = this.#world;
    const { counters, nodes, registry } = world;
    const done = this.#records.filter(({ readyMs }) => readyMs !== undefined);
    const times = done.map(({ readyMs, arrivalMs }) => (readyMs as number) - arrivalMs).sort((a, b) => a - b);
    const { seedPeers, seedUpMbitPerS } = this.#scenario.scheduler;
    const extraUpBytesPerMs = this.#name === 'scheduler' ? seedPeers * bytesPerMs(seedUpMbitPerS) : 0;
    const bounds = fluidBound({ world, scenario: this.#scenario }, { starts: done, extraUpBytesPerMs });
    const readBytes = this.#distinctRead();
    const registryBytes = registry.host.up.carriedBytes();
    const served = nodes.map(({ servedBytes }) => servedBytes).sort((a, b) => b - a);
    const first = Math.min(...this.#records.slice(0, 1).map(({ arrivalMs }) => arrivalMs));
    const last = done.reduce((latest, { readyMs }) => Math.max(latest, readyMs as number), first);
    return {
      policy: this.#name,
      starts: this.#expected,
      failed: this.#expected - done.length,
      startMs: spreadOf(times),
      boundMs: spreadOf(bounds),
      totalMs: last - first,
      bytes: { ...counters.bytes, registry: registryBytes },
      readBytes,
      egressRatio: registryBytes / Math.max(1, readBytes),
      registryRequests: counters.requestsAtRegistry,
      crossZoneBytes: counters.crossZoneBytes,
      messages: { ...counters.messages },
      messageBytes: counters.messageBytes,
      messagesPerNode: spreadOf(nodes.map(({ messagesIn }) => messagesIn)),
      servedPerNode: spreadOf(served),
      startCurveMs: thinned(times),
      boundCurveMs: thinned(bounds),
      servedCurve: thinned(served),
      samples: this.#sampler?.finish() ?? [],
      zones: this.#zoneUse(),
      events: this.#timeline.handled,
      reviews: world.network.reviews,
      realMs,
    };
  }

  /** What all containers together read, each content once, as the registry sends it. */
  #distinctRead(): number {
    const seen = new Set<number>();
    let bytes = 0;
    for (const image of new Set(this.#records.map((record) => record.image))) {
      for (const file of image.files) {
        for (const at of file) {
          const chunk = image.chunks[at] as SimImage['chunks'][number];
          if (seen.has(chunk.content)) continue;
          seen.add(chunk.content);
          bytes += chunk.compressedBytes;
        }
      }
    }
    return bytes;
  }

  #zoneUse(): ZoneUse[] {
    const nowMs = Math.max(1, this.#timeline.nowMs());
    return this.#world.zones.map(({ name, up, down }) => ({
      name,
      up: up === undefined ? undefined : up.carriedBytes() / (up.bytesPerMs * nowMs),
      down: down === undefined ? undefined : down.carriedBytes() / (down.bytesPerMs * nowMs),
      upBytes: up?.carriedBytes() ?? 0,
      downBytes: down?.carriedBytes() ?? 0,
    }));
  }
}
