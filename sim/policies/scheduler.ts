import { MESSAGE_BYTES } from '../cost-model.ts';
import type { Host } from '../network/host.ts';
import type { Ended } from '../network/world.ts';
import type { SimLayer } from '../workload/image.ts';
import type { Policy, PolicyComponents } from './policy.ts';
import { createWholeImagePolicy } from './whole-image.ts';

const MIB = 1024 * 1024;
/** Pieces grow, in powers of two, so that a layer has no more than these. */
const MOST_PIECES = 500;
/** Largest piece, bytes. */
const MOST_PIECE_BYTES = 64 * MIB;
/** A peer whose parents have nothing new for it looks again after this, ms: piece announcements are streamed. */
const LOOK_AGAIN_MS = 20;
/** Pieces a seed peer fetches from the registry at the same time. */
const SEED_PIECES = 8;

/** A peer's copy of one layer. */
interface Copy {
  readonly host: Host;
  readonly has: Uint8Array;
  count: number;
  uploading: number;
  /** Children that were given this parent and are not done. */
  children: number;
}

interface Task {
  readonly layer: SimLayer;
  readonly pieceBytes: number;
  readonly pieces: number;
  readonly copies: Map<Host, Copy>;
  /** Copies in the order of their coming: whom the scheduler can name. */
  readonly list: Copy[];
}

/**
 * A central scheduler with seed peers and pieces of 4 MiB or more (Dragonfly 2.4: scheduler/scheduling, client
 * resource/piece.rs and dfdaemon.rs): a peer asks the scheduler for parents, seed peers fetch what nobody has from the
 * registry, a piece can be passed on as soon as it is whole, and layers are whole files to containerd. Simplified: the
 * scheduler names the least loaded of a random sample and costs one message a layer; a peer prefers the parent with the
 * fewest uploads; pieces come in any order; no back-to-source, preheat or priorities; a peer that runs out looks again.
 */
export function createSchedulerPolicy({ world, scenario, random, blobs }: PolicyComponents): Policy {
  const settings = scenario.scheduler;
  const { timeline } = world;
  const link = { upMbitPerS: settings.seedUpMbitPerS, downMbitPerS: settings.seedUpMbitPerS, cores: 8 };
  const seeds = Array.from({ length: settings.seedPeers }, (_, at) => world.addHost(`seed ${at}`, link));
  const isSeed = new Set(seeds);
  const schedulerHost = world.addHost('scheduler', { ...link, cores: 8 });
  const tasks = new Map<number, Task>();

  function taskOf(layer: SimLayer): Task {
    const known = tasks.get(layer.blob);
    if (known !== undefined) return known;
    let pieceBytes = settings.pieceMib * MIB;
    while (layer.compressedBytes / pieceBytes > MOST_PIECES && pieceBytes < MOST_PIECE_BYTES) pieceBytes *= 2;
    const pieces = Math.max(1, Math.ceil(layer.compressedBytes / pieceBytes));
    const task: Task = { layer, pieceBytes, pieces, copies: new Map(), list: [] };
    tasks.set(layer.blob, task);
    for (const [at, seed] of seeds.entries()) if (at === layer.blob % seeds.length) seedTask(task, seed);
    return task;
  }

  function join(task: Task, host: Host): Copy {
    const copy: Copy = { host, has: new Uint8Array(task.pieces), count: 0, uploading: 0, children: 0 };
    task.copies.set(host, copy);
    task.list.push(copy);
    return copy;
  }

  function bytesOf(task: Task, piece: number): number {
    return Math.min(task.pieceBytes, task.layer.compressedBytes - piece * task.pieceBytes);
  }

  /** One seed peer per layer brings it from the registry, piece by piece. */
  function seedTask(task: Task, seed: Host): void {
    const copy = join(task, seed);
    let next = 0;
    const fetchNext = (): void => {
      const piece = next;
      if (piece >= task.pieces) return;
      next += 1;
      world.registry.fetch(seed, bytesOf(task, piece), () => {
        copy.has[piece] = 1;
        copy.count += 1;
        fetchNext();
      });
    };
    for (let lane = 0; lane < SEED_PIECES; lane += 1) fetchNext();
  }

  function chooseParents(task: Task, child: Host): Copy[] {
    const sample: Copy[] = [];
    for (let tries = 0; tries < 4 * settings.parents; tries += 1) {
      const copy = task.list[random.below(task.list.length)] as Copy;
      if (copy.host !== child && copy.host.isUp && !sample.includes(copy)) sample.push(copy);
    }
    // Own zone first, then who has fewer children; the seed peer is always there to fall back on.
    const rank = (copy: Copy): number => (copy.host.zone === child.zone ? 0 : 1_000) + copy.children;
    sample.sort((a, b) => rank(a) - rank(b));
    const chosen = sample.filter(({ host }) => !isSeed.has(host)).slice(0, settings.parents - 1);
    const seed = task.list[0];
    if (seed !== undefined) chosen.push(seed);
    return chosen;
  }

  function download(host: Host, layer: SimLayer, done: () => void): void {
    const { life } = host;
    const isGone = (): boolean => !host.isUp || host.life !== life;
    const arrived = (): void => {
      const task = taskOf(layer);
      timeline.after(world.latencyMs(schedulerHost, host), () => {
        if (isGone()) return;
        const copy = join(task, host);
        new Child({ task, copy, done, isGone }).fill();
      });
    };
    world.send(host, schedulerHost, 'schedule', { bytes: MESSAGE_BYTES.schedule, arrived });
  }

  /** One peer's download of one layer. */
  class Child {
    readonly #init: { task: Task; copy: Copy; done: () => void; isGone: () => boolean };
    #parents: Copy[];
    readonly #wanted: number[];
    #active = 0;
    #looking = false;
    #empty = 0;

    constructor(init: { task: Task; copy: Copy; done: () => void; isGone: () => boolean }) {
      this.#init = init;
      this.#parents = chooseParents(init.task, init.copy.host);
      for (const parent of this.#parents) parent.children += 1;
      this.#wanted = random.shuffle(Array.from({ length: init.task.pieces }, (_, piece) => piece));
    }

    fill(): void {
      const { copy, isGone } = this.#init;
      if (isGone()) return;
      while (this.#active < settings.piecesAtOnce && this.#wanted.length > 0) {
        const found = this.#next();
        if (found === undefined) break;
        this.#fetch(found.parent, found.piece, copy);
      }
      if (this.#active < settings.piecesAtOnce && this.#wanted.length > 0) this.#lookAgain();
    }

    #next(): { parent: Copy; piece: number } | undefined {
      for (const [at, piece] of this.#wanted.entries()) {
        let best: Copy | undefined;
        for (const parent of this.#parents) {
          if (parent.has[piece] !== 1 || parent.uploading >= settings.uploads || !parent.host.isUp) continue;
          if (best === undefined || parent.uploading < best.uploading) best = parent;
        }
        if (best === undefined) continue;
        this.#wanted[at] = this.#wanted.at(-1) as number;
        this.#wanted.pop();
        return { parent: best, piece };
      }
      return undefined;
    }

    #fetch(parent: Copy, piece: number, copy: Copy): void {
      const { task } = this.#init;
      this.#active += 1;
      parent.uploading += 1;
      const source = isSeed.has(parent.host) ? 'seed' : 'neighbour';
      const over = (how: Ended): void => {
        parent.uploading -= 1;
        this.#active -= 1;
        if (how === 'done') this.#arrived(piece);
        else {
          this.#wanted.push(piece);
          this.#reschedule();
        }
        this.fill();
      };
      world.send(copy.host, parent.host, 'request', {
        bytes: MESSAGE_BYTES.request,
        arrived: () => world.move(parent.host, copy.host, bytesOf(task, piece), source, { moveOver: over }),
        refused: () => over('lost'),
      });
    }

    #arrived(piece: number): void {
      const { task, copy, done } = this.#init;
      copy.has[piece] = 1;
      copy.count += 1;
      if (copy.count < task.pieces) return;
      for (const parent of this.#parents) parent.children -= 1;
      done();
    }

    #lookAgain(): void {
      if (this.#looking) return;
      this.#looking = true;
      timeline.after(LOOK_AGAIN_MS, () => {
        this.#looking = false;
        this.#empty += 1;
        // Parents that stay behind are exchanged, as the scheduler does when a peer reports that it is stuck.
        if (this.#empty % 25 === 0) this.#reschedule();
        this.fill();
      });
    }

    #reschedule(): void {
      for (const parent of this.#parents) parent.children -= 1;
      this.#parents = chooseParents(this.#init.task, this.#init.copy.host);
      for (const parent of this.#parents) parent.children += 1;
      world.counters.messages.schedule += 1;
    }
  }

  function forget(host: Host, { keepsDisk }: { keepsDisk: boolean }): void {
    if (keepsDisk) return;
    for (const task of tasks.values()) {
      const copy = task.copies.get(host);
      if (copy === undefined) continue;
      copy.has.fill(0);
      copy.count = 0;
    }
  }

  return createWholeImagePolicy({ world, download, forget }, { layersAtOnce: settings.layersAtOnce, blobs });
}
