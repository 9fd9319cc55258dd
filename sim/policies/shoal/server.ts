import { UPLOAD_LIMITS } from '../../../src/core/policy/upload-limits.ts';
import {
  createUploadQueue,
  type Upload,
  type UploadLimits,
  type UploadQueue,
} from '../../../src/core/policy/upload-queue.ts';
import { COST, MESSAGE_BYTES } from '../../cost-model.ts';
import { Bag, type Bagged } from '../../engine/lists.ts';
import { Alarm, type Timer } from '../../engine/timeline.ts';
import type { Transfer } from '../../network/fair-share.ts';
import type { Awaiting } from '../../network/move.ts';
import type { Ended } from '../../network/world.ts';
import type { ShoalNode, Urgency, Wanted } from './node.ts';
import { DATA_LIMITS } from './transport-limits.ts';

/** What a neighbour's answer came to. */
export type Answer =
  | { readonly kind: 'ok'; readonly firstByteMs: number; readonly totalMs: number }
  | { readonly kind: 'missing' }
  | { readonly kind: 'busy'; readonly retryAfterMs: number }
  | { readonly kind: 'failed' };

/** A request under way. */
export interface Request {
  readonly server: ShoalNode;
  /** How long the neighbour may keep it while it gets the chunk itself, ms; 0: it must have it. */
  readonly waitMs: number;
  readonly askedMs: number;
  cancel(): void;
}

/** What happens to a request next; one thing at a time. */
type Step = 'arrive' | 'succeed' | 'answer';

/** Whoever made a request. */
export interface Asker {
  /** Called once, unless the request is cancelled. */
  answered(request: Request, answer: Answer): void;
}

/** Asks `server` for a chunk on behalf of `client`. */
export function askNeighbour(
  client: ShoalNode,
  server: ShoalNode,
  init: { wanted: Wanted; urgency: Urgency; waitMs: number; asker: Asker },
): Request {
  return new Exchange(client, server, init);
}

/** One request for a chunk and its answer, from the client's and the server's side. */
class Exchange extends Alarm implements Upload<number>, Request, Awaiting, Bagged {
  bagAt = -1;
  readonly peer: number;
  readonly bytes: number;
  readonly count: number;
  readonly urgency: Urgency;
  readonly directed: boolean;
  readonly client: ShoalNode;
  readonly server: ShoalNode;
  readonly #wanted: Wanted;
  readonly waitMs: number;
  readonly askedMs: number;
  readonly #asker: Asker;
  readonly #clientLife: number;
  readonly #serverLife: number;
  #step: Step = 'arrive';
  #answer: Answer | undefined;
  #firstByteMs = 0;
  /** How long after the start of the transfer the server has done its work, ms. */
  #sentMs = 0;
  #transfer: Transfer | undefined;
  #waiting: Timer | undefined;
  #isOver = false;
  /** Where it stands at the server. */
  #stage: 'sent' | 'waits' | 'queued' | 'runs' | 'ended' = 'sent';

  constructor(
    client: ShoalNode,
    server: ShoalNode,
    init: { wanted: Wanted; urgency: Urgency; waitMs: number; asker: Asker },
  ) {
    super();
    this.client = client;
    this.server = server;
    this.peer = client.id;
    this.bytes = init.wanted.chunk.bytes;
    this.count = init.wanted.chunk.count;
    this.urgency = init.urgency;
    this.directed = init.waitMs > 0 || !server.swarm.scenario.shoal.refuseUndirected;
    this.#wanted = init.wanted;
    this.waitMs = Math.min(init.waitMs, DATA_LIMITS.maxWaitMs);
    this.#asker = init.asker;
    this.#clientLife = client.host.life;
    this.#serverLife = server.host.life;
    const { world } = client.swarm;
    this.askedMs = world.timeline.nowMs();
    const { counters } = world;
    counters.messages.request += this.count;
    counters.messageBytes += this.count * MESSAGE_BYTES.request;
    client.host.messagesOut += this.count;
    world.timeline.set(this, COST.requestMs + world.latencyMs(client.host, server.host));
  }

  ring(): void {
    switch (this.#step) {
      case 'arrive':
        this.#arrived();
        return;
      case 'succeed': {
        const totalMs = this.client.swarm.clock.nowMs() - this.askedMs;
        this.#end({ kind: 'ok', firstByteMs: this.#firstByteMs, totalMs });
        return;
      }
      case 'answer':
        this.#end(this.#answer as Answer);
    }
  }

  cancel(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#waiting?.cancel();
    this.#transfer?.cancel();
    this.#leaveServer();
  }

  /** The server died: the client notices when its connection breaks. */
  lost(): void {
    this.#stage = 'ended';
    this.#waiting?.cancel();
    this.#end({ kind: 'failed' });
  }

  /** Its turn has come: the bytes leave. */
  run(): void {
    this.#stage = 'runs';
    const { client, server } = this;
    const { world } = server.swarm;
    const ms = this.count * world.cost.serveMs + this.bytes * (COST.hashMsPerByte + COST.tlsMsPerByte);
    if (!client.host.isUp || client.host.life !== this.#clientLife) {
      this.#isOver = true;
      this.#leaveServer();
      return;
    }
    // The server works while the bytes flow: what they wait for it is added at the end, one event instead of two.
    const sentMs = world.occupy(server.host, ms);
    this.#sentMs = sentMs;
    this.#firstByteMs = sentMs + world.timeline.nowMs() + world.latencyMs(server.host, client.host) - this.askedMs;
    this.#transfer = world.move(server.host, client.host, this.bytes, 'neighbour', this);
  }

  /** Its bytes arrived at the client, which has its work with them, or never will. */
  moveOver(how: Ended): void {
    this.#leaveServer();
    if (how === 'lost') {
      this.#end({ kind: 'failed' });
      return;
    }
    const { client } = this;
    const { world } = client.swarm;
    const workMs = this.count * world.cost.readMs + this.bytes * (COST.hashMsPerByte + COST.tlsMsPerByte);
    this.#step = 'succeed';
    world.timeline.set(this, this.#sentMs + world.occupy(client.host, workMs));
  }

  #arrived(): void {
    const { server } = this;
    if (this.#isOver) return;
    if (!server.host.isUp || server.host.life !== this.#serverLife) {
      this.#answerLater({ kind: 'failed' });
      return;
    }
    server.host.messagesIn += this.count;
    const { content } = this.#wanted.chunk;
    if (server.has(content)) this.#enqueue();
    else if (this.waitMs === 0 || !server.isGetting(content) || !server.server.mayWait(this)) {
      this.#answerLater({ kind: 'missing' });
    } else {
      this.#stage = 'waits';
      this.#waiting = server.swarm.world.timeline.after(this.waitMs, () => {
        this.#leaveServer();
        this.#answerLater({ kind: 'missing' });
      });
      server.joinUnderWay(content, this.urgency, () => {
        if (this.#isOver || this.#stage !== 'waits') return;
        this.#waiting?.cancel();
        server.server.waitOver(this);
        this.#enqueue();
      });
    }
  }

  #enqueue(): void {
    this.#stage = 'queued';
    const retryAfterMs = this.server.server.take(this);
    if (retryAfterMs === undefined) return;
    this.#stage = 'ended';
    this.#answerLater({ kind: 'busy', retryAfterMs });
  }

  #leaveServer(): void {
    const { server } = this.server;
    if (this.#stage === 'waits') server.waitOver(this);
    if (this.#stage === 'queued') server.leave(this);
    if (this.#stage === 'runs') server.finished(this);
    this.#stage = 'ended';
  }

  /** The head of an answer is on its way back. */
  #answerLater(answer: Answer): void {
    const { world } = this.client.swarm;
    this.#step = 'answer';
    this.#answer = answer;
    world.timeline.set(this, world.latencyMs(this.server.host, this.client.host));
  }

  #end(answer: Answer): void {
    if (this.#isOver) return;
    this.#isOver = true;
    const { host } = this.client;
    if (host.isUp && host.life === this.#clientLife) this.#asker.answered(this, answer);
  }
}

/** Uploads of one node: the daemon's queue decides which runs. */
export class Server {
  readonly #node: ShoalNode;
  readonly #queue: UploadQueue<Exchange>;
  /** Uploads that are queued or under way, and requests that wait for a chunk. */
  readonly #exchanges = new Bag<Exchange>();
  readonly #waits = new Bag<Exchange>();
  #timer: Timer | undefined;

  constructor(node: ShoalNode) {
    this.#node = node;
    const bytesPerSecond = node.swarm.scenario.shoal.uploadMbitPerS * 125_000;
    this.#queue = createUploadQueue<Exchange>({ bytesPerSecond, limits: node.swarm.uploadLimits });
  }

  /** Keeps the request open when there is room for one more. */
  mayWait(exchange: Exchange): boolean {
    const { waits, waitsPerPeer } = DATA_LIMITS;
    const { size } = this.#waits;
    if (size >= waits) return false;
    if (size >= waitsPerPeer) {
      const ofPeer = this.#waits.items().filter(({ peer }) => peer === exchange.peer);
      if (ofPeer.length >= waitsPerPeer) return false;
    }
    this.#waits.add(exchange);
    return true;
  }

  waitOver(exchange: Exchange): void {
    this.#waits.remove(exchange);
  }

  take(exchange: Exchange): number | undefined {
    const retryAfterMs = this.#queue.add(exchange, this.#nowMs);
    if (retryAfterMs !== undefined) return retryAfterMs;
    this.#exchanges.add(exchange);
    this.#runNext();
    return undefined;
  }

  leave(exchange: Exchange): void {
    this.#exchanges.remove(exchange);
    this.#queue.remove(exchange);
  }

  finished(exchange: Exchange): void {
    if (!this.#exchanges.remove(exchange)) return;
    this.#queue.finished(exchange);
    this.#runNext();
  }

  /** The node died: everybody who waits for it fails. */
  fail(): void {
    this.#timer?.cancel();
    for (const exchange of [...this.#exchanges.items(), ...this.#waits.items()]) exchange.lost();
    this.#exchanges.clear();
    this.#waits.clear();
  }

  get #nowMs(): number {
    return this.#node.swarm.clock.nowMs();
  }

  #runNext(): void {
    for (let next = this.#queue.next(this.#nowMs); next !== undefined; next = this.#queue.next(this.#nowMs)) next.run();
    const waitMs = this.#queue.waitMs(this.#nowMs);
    if (waitMs === undefined) return;
    this.#timer?.cancel();
    this.#timer = this.#node.swarm.world.timeline.after(waitMs, () => this.#runNext());
  }
}

/** The daemon's limits for chunks, for units of so many. */
export function uploadLimitsFor(unit: number): UploadLimits {
  const { slots, demandSlots, undirected, queued, queuedPerPeer } = UPLOAD_LIMITS;
  const scaled = (limit: number): number => Math.max(1, Math.round(limit / unit));
  return {
    ...UPLOAD_LIMITS,
    slots: scaled(slots),
    demandSlots: scaled(demandSlots),
    undirected: scaled(undirected),
    queued: scaled(queued),
    queuedPerPeer: scaled(queuedPerPeer),
  };
}
