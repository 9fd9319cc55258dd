import { noise } from '@chainsafe/libp2p-noise';
import { identify } from '@libp2p/identify';
import type {
  ComponentLogger,
  Connection,
  Libp2p,
  PeerId,
  Logger as PeerLogger,
  PrivateKey,
  Stream,
} from '@libp2p/interface';
import { type KadDHT, type KadDHTComponents, kadDHT, passthroughMapper } from '@libp2p/kad-dht';
import { peerIdFromMultihash, peerIdFromPrivateKey, peerIdFromString } from '@libp2p/peer-id';
import { ping } from '@libp2p/ping';
import { preSharedKey } from '@libp2p/pnet';
import { tcp } from '@libp2p/tcp';
import { yamux } from '@libp2p/yamux';
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr';
import { createLibp2p } from 'libp2p';
import { CID } from 'multiformats/cid';
import * as raw from 'multiformats/codecs/raw';
import * as multihash from 'multiformats/hashes/digest';
import { ShoalError } from '../../errors.ts';
import { VERSION } from '../../version.ts';
import { classifyAddress } from '../address.ts';
import { KEY_BYTES } from './chunk-key.ts';
import { SWARM_LIMITS } from './limits.ts';
import { hostAndPort, multiaddrText } from './multiaddrs.ts';
import { encodeSwarmKey, type SwarmKey } from './swarm-key.ts';

/** Protocol of the swarm's own messages, and of its DHT. */
export const SWARM_PROTOCOL = '/shoal/swarm/1.0.0';
export const KAD_PROTOCOL = '/shoal/kad/1.0.0';

/** A libp2p node as the rest of the swarm needs it. */
export interface SwarmNode {
  readonly id: string;
  readonly multihash: Uint8Array;
  /** The port it listens on; 0 when it does not listen. */
  readonly port: number;
  /** Connects; `id` must be who answers, when given. Throws UNAVAILABLE. */
  dial(to: { host: string; port: number; id?: string }, options?: { signal?: AbortSignal }): Promise<Connection>;
  connectionsTo(id: string): readonly Connection[];
  readonly connectionCount: number;
  /** Whether kad-dht can describe the peer to others. */
  isInPeerStore(id: string): Promise<boolean>;
  hangUp(id: string): Promise<void>;
  onConnection(listener: (connection: Connection, event: 'open' | 'close') => void): void;
  onStream(handler: (stream: Stream, connection: Connection) => void): Promise<void>;
  /** kad-dht's own walk: who provides the key. Throws the signal's reason. */
  walk(key: Uint8Array, options: { signal: AbortSignal }): AsyncIterable<{ id: string; host: string; port: number }>;
  /** The id of a multihash; undefined when it is none of an Ed25519 key. */
  idOf(multihash: Uint8Array): string | undefined;
  multihashOf(id: string): Uint8Array;
  stop(): Promise<void>;
}

/** What a node needs. Without a key there is no node that listens. */
export interface SwarmNodeInit {
  readonly privateKey: PrivateKey;
  readonly key: SwarmKey | undefined;
  /** `host` and `port` to listen on; port 0 takes any. */
  readonly listen: { readonly host: string; readonly port: number };
  readonly connectionsMax: number;
  /** Whether peers may be at loopback addresses: only where this node is one of several on a host. */
  readonly allowLoopback: boolean;
}

/** Starts the node. Throws CONFIG_INVALID without a key, UNAVAILABLE when it can't listen. */
export async function startNode(
  components: { datastore: KadDHTComponents['datastore']; isRefused: (id: string) => boolean },
  init: SwarmNodeInit,
): Promise<SwarmNode> {
  if (init.key === undefined || init.key.bytes.byteLength !== KEY_BYTES) {
    throw new ShoalError('CONFIG_INVALID', 'a swarm port needs a swarm key: set swarm.key_file');
  }
  try {
    const libp2p = await createNode(components, init, init.key);
    await libp2p.use(KAD_PROTOCOL, limitBytes);
    return new Node(libp2p, peerIdFromPrivateKey(init.privateKey));
  } catch (cause) {
    const where = `${init.listen.host}:${init.listen.port}`;
    throw new ShoalError('UNAVAILABLE', `the swarm can't listen on ${where}: ${(cause as Error).message}`, { cause });
  }
}

type Services = { dht: KadDHT };

async function createNode(
  { datastore, isRefused }: { datastore: KadDHTComponents['datastore']; isRefused: (id: string) => boolean },
  init: SwarmNodeInit,
  key: SwarmKey,
): Promise<Libp2p<Services>> {
  const refuse = (peer: PeerId): boolean => isRefused(peer.toString());
  const { streamsPerConnection, streamWindowBytes, kadStreamsPerPeer } = SWARM_LIMITS;
  return (await createLibp2p<Services & Record<string, unknown>>({
    privateKey: init.privateKey,
    nodeInfo: { name: 'shoal', version: VERSION, userAgent: `shoal/${VERSION}` },
    addresses: { listen: [multiaddrText(init.listen)] },
    transports: [tcp()],
    connectionProtector: preSharedKey({ psk: encodeSwarmKey(key) }),
    connectionEncrypters: [noise()],
    streamMuxers: [
      yamux({
        maxInboundStreams: streamsPerConnection,
        maxOutboundStreams: streamsPerConnection,
        streamOptions: { initialStreamWindowSize: streamWindowBytes, maxStreamWindowSize: streamWindowBytes },
      }),
    ],
    connectionGater: {
      denyDialPeer: refuse,
      denyDialMultiaddr: (address) => !isAllowed(address, init.allowLoopback),
      denyInboundEncryptedConnection: refuse,
      denyOutboundEncryptedConnection: refuse,
    },
    connectionManager: {
      // Ours closes the least useful ones first; the library's own limit is the second line.
      maxConnections: init.connectionsMax + SWARM_LIMITS.pendingConnections,
      maxIncomingPendingConnections: SWARM_LIMITS.pendingConnections,
      inboundConnectionThreshold: SWARM_LIMITS.connectionsPerSecond,
      maxParallelDials: 4 * SWARM_LIMITS.dials,
      dialTimeout: SWARM_LIMITS.dialTimeoutMs,
      addressDialTimeout: SWARM_LIMITS.dialTimeoutMs,
      inboundUpgradeTimeout: SWARM_LIMITS.helloTimeoutMs,
      // Ours redials: with the address that others know by now.
      reconnectRetries: 0,
    },
    // A stream per peer every ten seconds; TCP keep-alive and yamux pings find dead peers as well.
    connectionMonitor: { enabled: false },
    logger: SILENT,
    services: {
      identify: identify({ runOnConnectionOpen: true }),
      ping: ping(),
      dht: (libp2p) =>
        kadDHT({
          protocol: KAD_PROTOCOL,
          clientMode: false,
          peerInfoMapper: passthroughMapper,
          allowQueryWithZeroPeers: true,
          maxInboundStreams: kadStreamsPerPeer,
          maxOutboundStreams: 4 * kadStreamsPerPeer,
          // Only provider records: nobody keeps values here.
          validators: { pk: refuseValue, ipns: refuseValue },
        })(withDatastore(libp2p, datastore)) as KadDHT,
    },
  })) as unknown as Libp2p<Services>;
}

/** Addresses come from other peers: none may send this node to link-local or metadata services, or to its own host. */
function isAllowed(address: Multiaddr, allowLoopback: boolean): boolean {
  const reach = classifyAddress(hostAndPort(address)?.host ?? '');
  return reach === 'loopback' ? allowLoopback : reach !== 'forbidden';
}

/** Resets a stream of kad-dht that carries more than its messages need. */
function limitBytes(
  stream: Stream,
  connection: Connection,
  next: (stream: Stream, connection: Connection) => void,
): void {
  let bytes = 0;
  stream.addEventListener('message', ({ data }) => {
    bytes += data.byteLength;
    if (bytes > SWARM_LIMITS.kadStreamBytes) stream.abort(new ShoalError('PEER_PROTOCOL', 'too much on one stream'));
  });
  next(stream, connection);
}

function refuseValue(): never {
  throw new ShoalError('PEER_PROTOCOL', 'values are not kept');
}

/** libp2p's components with our datastore in place of the one all parts share. */
function withDatastore<T extends object>(
  components: T,
  datastore: KadDHTComponents['datastore'],
): T & KadDHTComponents {
  return new Proxy(components, {
    get: (target, name) => (name === 'datastore' ? datastore : Reflect.get(target, name)),
  }) as T & KadDHTComponents;
}

class Node implements SwarmNode {
  readonly id: string;
  readonly multihash: Uint8Array;
  readonly #libp2p: Libp2p<Services>;

  constructor(libp2p: Libp2p<Services>, peerId: PeerId) {
    this.#libp2p = libp2p;
    this.id = peerId.toString();
    this.multihash = peerId.toMultihash().bytes;
  }

  get port(): number {
    for (const address of this.#libp2p.getMultiaddrs()) {
      const port = hostAndPort(address)?.port;
      if (port !== undefined) return port;
    }
    return 0;
  }

  async dial(
    to: { host: string; port: number; id?: string },
    { signal }: { signal?: AbortSignal } = {},
  ): Promise<Connection> {
    const timeout = AbortSignal.timeout(SWARM_LIMITS.dialTimeoutMs);
    try {
      return await this.#libp2p.dial(multiaddr(multiaddrText(to)), {
        signal: signal === undefined ? timeout : AbortSignal.any([timeout, signal]),
      });
    } catch (cause) {
      signal?.throwIfAborted();
      throw new ShoalError('UNAVAILABLE', `no swarm peer answers at ${to.host}:${to.port}`, { cause });
    }
  }

  connectionsTo(id: string): readonly Connection[] {
    return this.#libp2p.getConnections(peerIdFromString(id)).filter(({ status }) => status === 'open');
  }

  get connectionCount(): number {
    return this.#libp2p.getConnections().length;
  }

  async isInPeerStore(id: string): Promise<boolean> {
    return await this.#libp2p.peerStore.has(peerIdFromString(id));
  }

  async hangUp(id: string): Promise<void> {
    await this.#libp2p.hangUp(peerIdFromString(id)).catch(() => undefined);
  }

  onConnection(listener: (connection: Connection, event: 'open' | 'close') => void): void {
    this.#libp2p.addEventListener('connection:open', ({ detail }) => listener(detail, 'open'));
    this.#libp2p.addEventListener('connection:close', ({ detail }) => listener(detail, 'close'));
  }

  async onStream(handler: (stream: Stream, connection: Connection) => void): Promise<void> {
    await this.#libp2p.handle(SWARM_PROTOCOL, handler, {
      maxInboundStreams: SWARM_LIMITS.streamsPerPeer,
      maxOutboundStreams: SWARM_LIMITS.streamsPerPeer,
    });
  }

  async *walk(key: Uint8Array, { signal }: { signal: AbortSignal }) {
    const cid = CID.createV1(raw.code, multihash.create(0x12, key));
    for await (const event of this.#libp2p.services.dht.findProviders(cid, { signal })) {
      if (event.name !== 'PROVIDER') continue;
      for (const { id, multiaddrs } of event.providers) {
        const place = multiaddrs.map(hostAndPort).find((one) => one !== undefined);
        yield { id: id.toString(), host: place?.host ?? '', port: place?.port ?? 0 };
      }
    }
  }

  idOf(bytes: Uint8Array): string | undefined {
    try {
      const peer = peerIdFromMultihash(multihash.decode(bytes) as Parameters<typeof peerIdFromMultihash>[0]);
      return peer.type === 'Ed25519' ? peer.toString() : undefined;
    } catch {
      return undefined;
    }
  }

  multihashOf(id: string): Uint8Array {
    return peerIdFromString(id).toMultihash().bytes;
  }

  async stop(): Promise<void> {
    await this.#libp2p.stop();
  }
}

/** The library's own lines are about its insides, and formatting them costs time even when nobody reads them. */
const SILENT: ComponentLogger = { forComponent: () => quiet() };

function quiet(): PeerLogger {
  const log = (() => undefined) as unknown as PeerLogger;
  return Object.assign(log, {
    enabled: false,
    trace: () => undefined,
    error: () => undefined,
    newScope: () => log,
  });
}
