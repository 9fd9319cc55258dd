import type { Connection, Stream } from '@libp2p/interface';
import type { Clock } from '../../clock.ts';
import { orAborted } from '../../core/or-aborted.ts';
import { createRateLimit, type RateLimit } from '../../core/policy/rate-limit.ts';
import { hasCode, ShoalError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { Bans } from './bans.ts';
import { SWARM_LIMITS } from './limits.ts';
import { decodeHello, encodeHello, type Hello, MESSAGE } from './messages.ts';
import { hostAndPort } from './multiaddrs.ts';
import { SWARM_PROTOCOL, type SwarmNode } from './node.ts';
import type { PeerTable } from './peer-table.ts';
import { createRequestStream, type RequestStream, serveStream } from './wire-stream.ts';

/** Requests to peers and from them, over as few streams as can be: one for questions and one for batches each way. */
export interface PeerLinks {
  /** Connects when need be. Throws UNAVAILABLE, DEADLINE_EXCEEDED, or the signal's reason. */
  request(id: string, type: number, body: Uint8Array, options: RequestOptions): Promise<Uint8Array>;
  /** Connects to an address and exchanges Hellos; gives the id of who answered. Throws UNAVAILABLE. */
  meet(to: { host: string; port: number; id?: string }): Promise<string>;
  /** Connects to a known peer and exchanges Hellos, unless that is done. Throws UNAVAILABLE. */
  reach(id: string, options?: { signal?: AbortSignal }): Promise<void>;
  /** Closes the connection; `onGone` is not told. */
  hangUp(id: string): Promise<void>;
  /** A peer said Hello for the first time on a connection. */
  onGreeted(listener: (id: string) => void): void;
  /** A peer's last connection ended, and not by us. */
  onGone(listener: (id: string) => void): void;
}

export interface RequestOptions {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
  /** Goes over the stream for batches, so that questions do not wait behind it. */
  readonly isBulk?: boolean;
}

/** Answers what greeted peers ask; undefined refuses, PEER_PROTOCOL is an offence. */
export type Handler = (
  from: string,
  type: number,
  body: Uint8Array,
) => Uint8Array | undefined | Promise<Uint8Array | undefined>;

export interface LinkComponents {
  readonly node: SwarmNode;
  readonly table: PeerTable;
  readonly bans: Bans;
  readonly handler: Handler;
  readonly clock: Clock;
  readonly log: Logger;
}

interface Link {
  main: Promise<RequestStream> | undefined;
  bulk: Promise<RequestStream> | undefined;
  greeting: Promise<void> | undefined;
  offences: number;
  /** Questions in a row that were not answered in time, and when the peer last said anything. */
  unanswered: number;
  heardMs: number;
  readonly batches: RateLimit;
  readonly requests: RateLimit;
}

/** Starts to answer peers; `hello` is what this node says of itself. */
export async function startLinks(components: LinkComponents, init: { hello: Hello }): Promise<PeerLinks> {
  const links = new Links(components, init.hello);
  await links.start();
  return links;
}

class Links implements PeerLinks {
  readonly #parts: LinkComponents;
  readonly #hello: Uint8Array;
  readonly #links = new Map<string, Link>();
  readonly #dialling = new Map<string, Promise<void>>();
  readonly #hangingUp = new Set<string>();
  readonly #greetedListeners: ((id: string) => void)[] = [];
  readonly #goneListeners: ((id: string) => void)[] = [];

  constructor(parts: LinkComponents, hello: Hello) {
    this.#parts = parts;
    this.#hello = encodeHello(hello);
  }

  async start(): Promise<void> {
    const { node } = this.#parts;
    node.onConnection((connection, event) => {
      const id = connection.remotePeer.toString();
      if (event === 'close') this.#onClosed(id);
      // Whoever dialled speaks first. One that is no shoal node knows no such protocol: that is fine.
      else if (connection.direction === 'outbound') this.#greet(id).catch(() => undefined);
    });
    await node.onStream((stream, connection) => this.#serve(stream, connection));
  }

  onGreeted(listener: (id: string) => void): void {
    this.#greetedListeners.push(listener);
  }

  onGone(listener: (id: string) => void): void {
    this.#goneListeners.push(listener);
  }

  async request(id: string, type: number, body: Uint8Array, options: RequestOptions): Promise<Uint8Array> {
    const { timeoutMs, signal } = options;
    await this.reach(id, signal === undefined ? {} : { signal });
    this.#parts.table.used(id);
    const stream = await this.#stream(id, options.isBulk === true ? 'bulk' : 'main');
    const link = this.#link(id);
    try {
      const answer = await stream.request(type, body, signal === undefined ? { timeoutMs } : { timeoutMs, signal });
      this.#heard(link);
      return answer;
    } catch (error) {
      if (hasCode(error, 'DEADLINE_EXCEEDED')) this.#onSilence(id, link);
      throw error;
    }
  }

  async meet(to: { host: string; port: number; id?: string }): Promise<string> {
    const connection = await this.#parts.node.dial(to);
    const id = connection.remotePeer.toString();
    await this.#greet(id);
    return id;
  }

  async reach(id: string, { signal }: { signal?: AbortSignal } = {}): Promise<void> {
    const { table, bans } = this.#parts;
    if (bans.has(id)) throw new ShoalError('UNAVAILABLE', `${id} is banned`);
    if (table.get(id)?.connected === true) return;
    let dialling = this.#dialling.get(id);
    if (dialling === undefined) {
      dialling = this.#dial(id).finally(() => this.#dialling.delete(id));
      // Whoever asked may have left by the time it fails.
      dialling.catch(() => undefined);
      this.#dialling.set(id, dialling);
    }
    await (signal === undefined ? dialling : orAborted(dialling, signal));
  }

  async hangUp(id: string): Promise<void> {
    this.#hangingUp.add(id);
    await this.#parts.node.hangUp(id);
    this.#onClosed(id);
    this.#hangingUp.delete(id);
  }

  #heard(link: Link): void {
    link.unanswered = 0;
    link.heardMs = this.#parts.clock.nowMs();
  }

  /** A host that lost its power closes no connection: one that says nothing for a while is taken for gone. */
  #onSilence(id: string, link: Link): void {
    const { clock, table, log } = this.#parts;
    link.unanswered += 1;
    const { unansweredMax, silenceMs } = SWARM_LIMITS;
    if (link.unanswered < unansweredMax || clock.nowMs() - link.heardMs < silenceMs) return;
    log.info('a swarm peer does not answer any more', { peer: id });
    void this.hangUp(id).then(() => table.failed(id));
  }

  async #dial(id: string): Promise<void> {
    const { node, table } = this.#parts;
    const peer = table.get(id);
    if (peer === undefined || (peer.port === 0 && node.connectionsTo(id).length === 0)) {
      throw new ShoalError('UNAVAILABLE', `where ${id} listens is not known`);
    }
    try {
      if (node.connectionsTo(id).length === 0) await node.dial({ host: peer.host, port: peer.port, id });
      await this.#greet(id);
    } catch (error) {
      table.failed(id);
      throw error;
    }
  }

  /** Says Hello, unless the peer has said its own on this connection already. */
  #greet(id: string): Promise<void> {
    if (this.#parts.table.get(id)?.connected === true) return Promise.resolve();
    const link = this.#link(id);
    link.greeting ??= (async () => {
      const stream = await this.#stream(id, 'main');
      const body = await stream.request(MESSAGE.hello, this.#hello, { timeoutMs: SWARM_LIMITS.helloTimeoutMs });
      this.#accept(id, decodeHello(body), this.#parts.node.connectionsTo(id)[0]);
    })().finally(() => {
      link.greeting = undefined;
    });
    return link.greeting;
  }

  #accept(id: string, hello: Hello, connection: Connection | undefined): void {
    const { table, node, bans } = this.#parts;
    const remote = connection === undefined ? undefined : hostAndPort(connection.remoteAddr);
    if (remote === undefined || bans.has(id)) return;
    const { host } = remote;
    const port = hello.listenPort;
    if (table.hear({ id, multihash: node.multihashOf(id), host, port }) === undefined) return;
    const isNew = table.get(id)?.connected !== true;
    const fingerprint = Buffer.from(hello.fingerprint).toString('hex');
    const neighbour = { id, address: host, dataPort: hello.dataPort, fingerprint, zone: hello.zone };
    table.greeted(id, { neighbour, instance: Buffer.from(hello.instance).toString('hex'), port });
    if (isNew) for (const listener of this.#greetedListeners) listener(id);
  }

  #link(id: string): Link {
    let link = this.#links.get(id);
    if (link === undefined) {
      const { clock } = this.#parts;
      const { batchesPerSecond, requestsPerSecond } = SWARM_LIMITS;
      link = {
        main: undefined,
        bulk: undefined,
        greeting: undefined,
        offences: 0,
        unanswered: 0,
        heardMs: clock.nowMs(),
        batches: createRateLimit({ clock }, { perSecond: batchesPerSecond, burst: batchesPerSecond }),
        requests: createRateLimit({ clock }, { perSecond: requestsPerSecond, burst: requestsPerSecond }),
      };
      this.#links.set(id, link);
    }
    return link;
  }

  async #stream(id: string, kind: 'main' | 'bulk'): Promise<RequestStream> {
    const link = this.#link(id);
    for (let current = link[kind]; current !== undefined; current = link[kind]) {
      const stream = await current.catch(() => undefined);
      if (stream?.isOpen === true) return stream;
      if (link[kind] === current) link[kind] = undefined;
    }
    link[kind] = this.#open(id);
    return await link[kind];
  }

  async #open(id: string): Promise<RequestStream> {
    const [connection] = this.#parts.node.connectionsTo(id);
    if (connection === undefined) throw new ShoalError('UNAVAILABLE', `no connection to ${id}`);
    try {
      const signal = AbortSignal.timeout(SWARM_LIMITS.helloTimeoutMs);
      const stream = await connection.newStream(SWARM_PROTOCOL, { signal, negotiateFully: false });
      return createRequestStream(stream, (error) => this.#onOffence(id, error));
    } catch (cause) {
      throw new ShoalError('UNAVAILABLE', `${id} opens no stream`, { cause });
    }
  }

  #serve(stream: Stream, connection: Connection): void {
    const id = connection.remotePeer.toString();
    const link = this.#link(id);
    serveStream(stream, {
      delayMs: (type) =>
        type === MESSAGE.announce || type === MESSAGE.withdraw ? link.batches.take() : link.requests.take(),
      onOffence: (error) => this.#onOffence(id, error),
      answer: (type, body) => {
        this.#heard(link);
        if (type === MESSAGE.hello) {
          this.#accept(id, decodeHello(body), connection);
          return this.#hello;
        }
        const { table, handler } = this.#parts;
        if (table.get(id)?.connected !== true) return undefined;
        table.used(id);
        return handler(id, type, body);
      },
    });
  }

  #onOffence(id: string, error: ShoalError): void {
    const link = this.#link(id);
    link.offences += 1;
    this.#parts.log.warn('a swarm peer broke the protocol', { peer: id, reason: error.message, count: link.offences });
    if (link.offences < SWARM_LIMITS.offences) return;
    link.offences = 0;
    this.#parts.bans.add(id, { reason: `protocol: ${error.message}`, forMs: SWARM_LIMITS.offenceBanMs });
    this.#parts.table.refresh();
    void this.hangUp(id);
  }

  #onClosed(id: string): void {
    if (this.#parts.node.connectionsTo(id).length > 0) return;
    const link = this.#links.get(id);
    for (const stream of [link?.main, link?.bulk]) stream?.then((one) => one.close()).catch(() => undefined);
    if (link !== undefined && link.offences === 0) this.#links.delete(id);
    else if (link !== undefined) Object.assign(link, { main: undefined, bulk: undefined });
    const wasConnected = this.#parts.table.get(id)?.connected === true;
    this.#parts.table.disconnected(id);
    if (!wasConnected || this.#hangingUp.has(id)) return;
    for (const listener of this.#goneListeners) listener(id);
  }
}
