/**
 * The swarm node: loads libp2p, so the daemon imports this file only when `swarm.listen` is set, and then with `import()`.
 */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import type { Clock } from '../../clock.ts';
import { createClaimLedger } from '../../core/policy/claim-ledger.ts';
import { createRateLimit } from '../../core/policy/rate-limit.ts';
import type { Logger } from '../../log.ts';
import { classifyAddress } from '../address.ts';
import { type Announcer, startAnnouncer } from './announcer.ts';
import { type Bans, createBans } from './bans.ts';
import type { BootstrapEntry } from './bootstrap.ts';
import { createClaims } from './claims.ts';
import type { HeldChunks, Neighbour, PeerDirectory } from './directory.ts';
import { createFinder } from './finder.ts';
import { createHandler } from './handler.ts';
import { loadIdentity } from './identity.ts';
import { checkBudget, SWARM_LIMITS } from './limits.ts';
import { type Handler, type PeerLinks, startLinks } from './links.ts';
import { type Membership, startMembership } from './membership.ts';
import { decodeMap, encodeDigest, INSTANCE_BYTES, MESSAGE, PROTOCOL_VERSION } from './messages.ts';
import { createNegativeCache } from './negative-cache.ts';
import { type SwarmNode, startNode } from './node.ts';
import { createPeerTable, type PeerTable } from './peer-table.ts';
import { createProviderDatastore } from './provider-datastore.ts';
import { createProviderIndex, type ProviderIndex } from './provider-index.ts';
import type { SwarmKey } from './swarm-key.ts';
import { openSwarmState, type SwarmState } from './swarm-state.ts';

/** What a swarm node is told. */
export interface SwarmInit {
  /** Keys lie in `<root>/keys`, what can be lost in `<root>/swarm`. */
  readonly root: string;
  readonly key: SwarmKey;
  readonly listen: { readonly host: string; readonly port: number };
  /** Address other nodes reach this one at, for `self`; what they use is the address its connections come from. */
  readonly address: string;
  readonly dataPort: number;
  /** SHA-256 of the data plane's TLS certificate, hex. */
  readonly fingerprint: string;
  readonly zone: string;
  readonly bootstrap: readonly BootstrapEntry[];
  readonly replication: number;
  readonly connectionsMax: number;
  readonly recordsMax: number;
  readonly memoryBytesMax: number;
}

/** A running swarm node. */
export interface Swarm extends PeerDirectory {
  /** Resolves when this node has met whom it was told of, or knows that nobody answers. */
  readonly joined: Promise<void>;
  /** What `shoal swarm peers` shows. */
  status(): SwarmStatus;
  /** Resolves when every announcement handed over so far was acknowledged, or given up on. */
  announced(): Promise<void>;
  stop(): Promise<void>;
}

/** A swarm node at one moment. */
export interface SwarmStatus {
  readonly id: string;
  readonly port: number;
  readonly peers: readonly SwarmPeerStatus[];
  readonly banned: readonly { readonly id: string; readonly reason: string; readonly leftMs: number }[];
  /** Records kept for others and for itself, and copies of its own that others acknowledged. */
  readonly records: number;
  readonly acknowledged: number;
  readonly connections: number;
}

export interface SwarmPeerStatus {
  readonly id: string;
  readonly address: string;
  readonly port: number;
  readonly dataPort: number;
  readonly zone: string;
  readonly state: 'connected' | 'known' | 'away';
}

/** Who is known is written down this often, when it changed. */
const SAVE_EVERY_MS = 10_000;
/** One slice of the provider index is looked through for ended records this often; all of it in some four minutes. */
const SWEEP_EVERY_MS = 1_000;

/** Starts a node and looks for the swarm. Throws CONFIG_INVALID, STATE_CORRUPT, UNAVAILABLE. */
export async function startSwarm(
  components: { held: HeldChunks; clock: Clock; log: Logger },
  init: SwarmInit,
): Promise<Swarm> {
  checkBudget({ connections: init.connectionsMax, records: init.recordsMax, budgetBytes: init.memoryBytesMax });
  const { clock } = components;
  const privateKey = await loadIdentity(join(init.root, 'keys', 'peer.key'));
  const bans = createBans({ clock });
  const index = createProviderIndex({ records: init.recordsMax });
  let table: PeerTable | undefined;
  const datastore = createProviderDatastore({
    index,
    clock,
    isKnown: (id) => node.isInPeerStore(id),
    admit: admission(clock),
  });
  const node: SwarmNode = await startNode(
    { datastore, isRefused: (id) => bans.has(id) },
    {
      privateKey,
      key: init.key,
      listen: init.listen,
      connectionsMax: init.connectionsMax,
      allowLoopback: [init.listen.host, ...init.bootstrap.map(({ host }) => host)].some(isLoopback),
    },
  );
  try {
    const { dataPort, fingerprint, zone } = init;
    const self = { id: node.id, address: init.address, dataPort, fingerprint, zone };
    const instance = randomBytes(INSTANCE_BYTES);
    table = createPeerTable(
      { clock, isRefused: (id) => bans.has(id) },
      { self, multihash: node.multihash, instance: instance.toString('hex') },
    );
    return await assemble({ ...components, node, table, bans, index }, { ...init, instance });
  } catch (error) {
    await node.stop();
    throw error;
  }
}

interface Parts {
  readonly held: HeldChunks;
  readonly clock: Clock;
  readonly log: Logger;
  readonly node: SwarmNode;
  readonly table: PeerTable;
  readonly bans: Bans;
  readonly index: ProviderIndex;
}

async function assemble(parts: Parts, init: SwarmInit & { instance: Uint8Array }): Promise<Swarm> {
  const { node, table, index, clock, held } = parts;
  const ledger = createClaimLedger({ clock });
  const handler: { handle: Handler } = { handle: () => undefined };
  const hello = {
    version: PROTOCOL_VERSION,
    instance: init.instance,
    listenPort: node.port,
    dataPort: init.dataPort,
    fingerprint: Buffer.from(init.fingerprint, 'hex'),
    zone: init.zone,
  };
  const links = await startLinks({ ...parts, handler: (...call) => handler.handle(...call) }, { hello });
  const claims = createClaims({ ...parts, links, ledger });
  const unknown = createNegativeCache({ clock });
  handler.handle = createHandler({ table, index, clock, held, claims, ledger });
  links.onGone((id) => {
    // It may be on its way back; a dial tells.
    ledger.forget(id);
    void links.reach(id).catch(() => undefined);
  });
  const state = openSwarmState({
    folder: join(init.root, 'swarm'),
    multihashOf: (id) => node.multihashOf(id),
    wallTimeMs: () => clock.wallTimeMs(),
  });
  for (const peer of state.peers()) table.hear({ ...peer, multihash: node.multihashOf(peer.id) });
  const announcer = startAnnouncer(
    {
      ...parts,
      marker: state.marker,
      send: async (to, what, keys) => {
        if (to === table.self.id)
          return what === 'announce'
            ? void index.add(to, keys, clock.nowMs(), { isOwn: true })
            : index.remove(to, keys);
        const { ackTimeoutMs: timeoutMs } = SWARM_LIMITS;
        await links.request(to, MESSAGE[what], keys, { timeoutMs, isBulk: true });
      },
    },
    { replication: init.replication },
  );
  const membership = startMembership(
    { ...parts, links },
    { bootstrap: init.bootstrap, connectionsMax: init.connectionsMax },
  );
  const finder = createFinder(
    { ...parts, links, unknown, isYoung: () => membership.isYoung },
    { replication: init.replication },
  );
  return new RunningSwarm({ ...parts, links, ledger, claims, finder, announcer, membership, state });
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || classifyAddress(host) === 'loopback';
}

/** Stock announcements of one peer: as many records a second as it may send in batches. */
function admission(clock: Clock): (id: string) => boolean {
  const perSecond = SWARM_LIMITS.batchesPerSecond * SWARM_LIMITS.keysPerBatch;
  const limits = new Map<string, ReturnType<typeof createRateLimit>>();
  return (id) => {
    if (limits.size > SWARM_LIMITS.peers) limits.clear();
    let limit = limits.get(id);
    if (limit === undefined) {
      limit = createRateLimit({ clock }, { perSecond, burst: perSecond });
      limits.set(id, limit);
    }
    return limit.take() === 0;
  };
}

type RunningParts = Parts & {
  readonly links: PeerLinks;
  readonly ledger: ReturnType<typeof createClaimLedger>;
  readonly claims: ReturnType<typeof createClaims>;
  readonly finder: ReturnType<typeof createFinder>;
  readonly announcer: Announcer;
  readonly membership: Membership;
  readonly state: SwarmState;
};

class RunningSwarm implements Swarm {
  readonly self: Neighbour;
  readonly joined: Promise<void>;
  readonly claim: PeerDirectory['claim'];
  readonly settle: PeerDirectory['settle'];
  readonly find: PeerDirectory['find'];
  readonly announce: PeerDirectory['announce'];
  readonly withdraw: PeerDirectory['withdraw'];
  readonly byFingerprint: PeerDirectory['byFingerprint'];
  readonly #parts: RunningParts;
  readonly #timers: readonly NodeJS.Timeout[];
  #isSaved = false;
  #stopped: Promise<void> | undefined;

  constructor(parts: RunningParts) {
    this.#parts = parts;
    const { table, claims, finder, announcer, membership, index, clock } = parts;
    this.self = table.self.neighbour as Neighbour;
    this.claim = claims.claim.bind(claims);
    this.settle = claims.settle.bind(claims);
    this.find = finder.find.bind(finder);
    this.announce = announcer.announce.bind(announcer);
    this.withdraw = announcer.withdraw.bind(announcer);
    this.byFingerprint = table.byFingerprint.bind(table);
    table.onChange(() => {
      this.#isSaved = false;
    });
    this.#timers = [
      setInterval(() => void this.#save(), SAVE_EVERY_MS).unref(),
      setInterval(() => index.sweep(clock.nowMs()), SWEEP_EVERY_MS).unref(),
    ];
    this.joined = membership.join();
  }

  peers(): readonly Neighbour[] {
    const { table, bans } = this.#parts;
    const neighbours: Neighbour[] = [];
    for (const { id, connected, neighbour } of table.all()) {
      if (connected && neighbour !== undefined && !bans.has(id)) neighbours.push(neighbour);
    }
    return neighbours;
  }

  async haveMap({ id }: Neighbour, blob: Parameters<PeerDirectory['haveMap']>[1], { signal }: { signal: AbortSignal }) {
    signal.throwIfAborted();
    try {
      const { haveTimeoutMs: timeoutMs } = SWARM_LIMITS;
      return decodeMap(await this.#parts.links.request(id, MESSAGE.have, encodeDigest(blob), { timeoutMs, signal }));
    } catch {
      signal.throwIfAborted();
      return undefined;
    }
  }

  ban(id: string, { reason, forMs }: { reason: string; forMs: number }): void {
    const { bans, table, ledger, links, log } = this.#parts;
    log.warn('swarm peer banned', { peer: id, reason, forMs });
    bans.add(id, { reason, forMs });
    ledger.forget(id);
    table.refresh();
    void links.hangUp(id);
  }

  status(): SwarmStatus {
    const { node, table, bans, index, announcer } = this.#parts;
    const peers = [...table.all()].map(
      ({ id, host, port, neighbour, connected, failures }): SwarmPeerStatus => ({
        id,
        address: host,
        port,
        dataPort: neighbour?.dataPort ?? 0,
        zone: neighbour?.zone ?? '',
        state: connected ? 'connected' : failures > 0 ? 'away' : 'known',
      }),
    );
    return {
      id: node.id,
      port: node.port,
      peers,
      banned: bans.list(),
      records: index.records,
      acknowledged: announcer.acknowledged,
      connections: node.connectionCount,
    };
  }

  announced(): Promise<void> {
    return this.#parts.announcer.settled();
  }

  async stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    await this.#stopped;
  }

  async #stop(): Promise<void> {
    const { membership, announcer, node } = this.#parts;
    for (const timer of this.#timers) clearInterval(timer);
    membership.stop();
    await announcer.stop();
    await this.#save();
    await node.stop();
  }

  async #save(): Promise<void> {
    if (this.#isSaved) return;
    this.#isSaved = true;
    const { table, state, log } = this.#parts;
    const met = [...table.all()].filter(({ neighbour, port }) => neighbour !== undefined && port !== 0);
    const unmet = [...table.all()].filter(({ neighbour, port }) => neighbour === undefined && port !== 0);
    try {
      await state.savePeers([...met, ...unmet].map(({ id, host, port }) => ({ id, host, port })));
    } catch (error) {
      log.warn('the list of swarm peers was not saved', { reason: String(error) });
    }
  }
}
