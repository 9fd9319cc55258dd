import type { Clock } from '../../clock.ts';
import type { ClaimLedger, LedgerAnswer } from '../../core/policy/claim-ledger.ts';
import { CLAIM_LIMITS, claimShare } from '../../core/policy/claim-limits.ts';
import { createExpiringSet } from '../../core/policy/expiring-set.ts';
import { hasCode } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { Bans } from './bans.ts';
import { placeOfRegion } from './chunk-key.ts';
import { decodeClaims, encodeClaim, encodeClaims, encodeSettle, type WireClaim } from './claim-messages.ts';
import type { ClaimAnswer, ClaimRequest, Neighbour } from './directory.ts';
import { neighbourOf } from './finder.ts';
import { addressOf, hearAll } from './known-addresses.ts';
import { SWARM_LIMITS } from './limits.ts';
import type { PeerLinks } from './links.ts';
import { MESSAGE, type PeerAddress } from './messages.ts';
import type { SwarmNode } from './node.ts';
import type { KnownPeer, PeerTable } from './peer-table.ts';

/** Claims of this node and of others. */
export interface Claims {
  claim(request: ClaimRequest, options: { signal: AbortSignal }): Promise<readonly ClaimAnswer[]>;
  settle(request: ClaimRequest, outcome: 'held' | 'failed'): void;
  /** Answers another node's claim. */
  answer(from: string, request: ClaimRequest): Uint8Array;
}

export interface ClaimComponents {
  readonly node: SwarmNode;
  readonly table: PeerTable;
  readonly links: PeerLinks;
  readonly bans: Bans;
  readonly ledger: ClaimLedger;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Coordinators asked before everything is granted: each that is silent costs a timeout of a waiting read. */
const COORDINATORS = 2;
/** Regions whose coordinator is remembered until they are settled. */
const REGIONS_MAX = 4_096;
/** A coordinator that was silent is passed over for so long, ms: that it is gone is noticed by then. */
const SILENT_MS = 5_000;
/** A holder that must be dialled first is waited for this long. */
const MEET_TIMEOUT_MS = 500;

/** Claims over the swarm; `ledger` is what this node keeps as a coordinator. */
export function createClaims(components: ClaimComponents): Claims {
  return new SwarmClaims(components);
}

class SwarmClaims implements Claims {
  readonly #parts: ClaimComponents;
  /** Who answered for a region: the settlement goes there. */
  readonly #coordinators = new Map<string, string>();
  /** Coordinators that did not answer a moment ago: one that is gone holds up one claim, not each. */
  readonly #silent = createExpiringSet({ forMs: SILENT_MS, most: SWARM_LIMITS.peers });

  constructor(parts: ClaimComponents) {
    this.#parts = parts;
  }

  async claim(request: ClaimRequest, { signal }: { signal: AbortSignal }): Promise<readonly ClaimAnswer[]> {
    signal.throwIfAborted();
    const answers: ClaimAnswer[] = [];
    for (let from = 0; from < request.digests.length; from += SWARM_LIMITS.digestsPerClaim) {
      const digests = request.digests.slice(from, from + SWARM_LIMITS.digestsPerClaim);
      answers.push(...(await this.#claimSome({ ...request, digests }, signal)));
    }
    return answers;
  }

  settle(request: ClaimRequest, outcome: 'held' | 'failed'): void {
    const { table, ledger, links } = this.#parts;
    const to = this.#coordinators.get(regionName(request)) ?? this.#closest(request)[0]?.id;
    if (to === undefined) return;
    for (let from = 0; from < request.digests.length; from += SWARM_LIMITS.digestsPerClaim) {
      const digests = request.digests.slice(from, from + SWARM_LIMITS.digestsPerClaim);
      if (to === table.self.id) for (const digest of digests) ledger.settle(to, digest, outcome);
      else {
        const body = encodeSettle({ ...request, digests }, outcome);
        // Lost, it costs the rest of the lease.
        links.request(to, MESSAGE.settle, body, { timeoutMs: SWARM_LIMITS.ackTimeoutMs }).catch(() => undefined);
      }
    }
  }

  answer(from: string, { digests }: ClaimRequest): Uint8Array {
    const peers: PeerAddress[] = [];
    const places = new Map<string, number>();
    const share = claimShare(digests.length);
    const answers = digests.map((digest): WireClaim => {
      const answer = this.#parts.ledger.claim(from, digest, share);
      if (answer.kind === 'granted') return answer;
      const holders = answer.holders.map((id) => this.#placeIn(peers, places, id)).filter((at) => at !== undefined);
      return holders.length > 0 ? { kind: 'ask', holders } : { kind: 'granted', leaseMs: CLAIM_LIMITS.leaseMs };
    });
    return encodeClaims({ peers, answers });
  }

  #closest(request: ClaimRequest): readonly KnownPeer[] {
    const nowMs = this.#parts.clock.nowMs();
    const place = placeOfRegion(request.blob, request.region);
    const closest = this.#parts.table.closest(place, COORDINATORS + this.#silent.size);
    return closest.filter(({ id }) => !this.#silent.has(id, nowMs)).slice(0, COORDINATORS);
  }

  async #claimSome(request: ClaimRequest, signal: AbortSignal): Promise<readonly ClaimAnswer[]> {
    const { table, ledger } = this.#parts;
    for (const { id } of this.#closest(request)) {
      try {
        const answers =
          id === table.self.id
            ? await this.#named(
                request.digests.map((digest) => ledger.claim(id, digest, claimShare(request.digests.length))),
                signal,
              )
            : await this.#ask(id, request, signal);
        this.#remember(request, id);
        return answers;
      } catch (error) {
        signal.throwIfAborted();
        // Who refuses has answered, and may answer the next.
        if (!hasCode(error, 'UNAVAILABLE')) this.#silent.add(id, this.#parts.clock.nowMs());
        this.#parts.log.debug('a claim was not answered', { peer: id, reason: String(error) });
      }
    }
    return request.digests.map(() => ({ kind: 'granted', leaseMs: CLAIM_LIMITS.leaseMs }));
  }

  async #ask(id: string, request: ClaimRequest, signal: AbortSignal): Promise<readonly ClaimAnswer[]> {
    const { claimTimeoutMs: timeoutMs } = SWARM_LIMITS;
    const limited = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
    const options = { timeoutMs, signal: limited };
    const body = await this.#parts.links.request(id, MESSAGE.claim, encodeClaim(request), options);
    const { peers, answers } = decodeClaims(body, request.digests.length);
    const ids = hearAll(this.#parts, peers);
    const named = answers.map((answer): LedgerAnswer => {
      if (answer.kind === 'granted') return answer;
      return { kind: 'ask', holders: answer.holders.map((at) => ids[at]).filter((holder) => holder !== undefined) };
    });
    return await this.#named(named, signal);
  }

  /** The answers with neighbours in place of ids; a chunk whose holders are all out of reach is granted. */
  async #named(answers: readonly LedgerAnswer[], signal: AbortSignal): Promise<readonly ClaimAnswer[]> {
    const ids = new Set(answers.flatMap((answer) => (answer.kind === 'ask' ? answer.holders : [])));
    const limited = AbortSignal.any([signal, AbortSignal.timeout(MEET_TIMEOUT_MS)]);
    const known = new Map<string, Neighbour | undefined>();
    await Promise.all([...ids].map(async (id) => known.set(id, await neighbourOf(this.#parts, id, limited))));
    signal.throwIfAborted();
    return answers.map((answer): ClaimAnswer => {
      if (answer.kind === 'granted') return answer;
      const holders = answer.holders.map((id) => known.get(id)).filter((holder) => holder !== undefined);
      return holders.length > 0 ? { kind: 'ask', holders } : { kind: 'granted', leaseMs: CLAIM_LIMITS.leaseMs };
    });
  }

  #placeIn(peers: PeerAddress[], places: Map<string, number>, id: string): number | undefined {
    const { table } = this.#parts;
    const known = places.get(id);
    if (known !== undefined) return known;
    const peer = id === table.self.id ? table.self : table.get(id);
    if (peer === undefined) return undefined;
    peers.push(addressOf(peer));
    places.set(id, peers.length - 1);
    return peers.length - 1;
  }

  #remember(request: ClaimRequest, id: string): void {
    const name = regionName(request);
    this.#coordinators.delete(name);
    this.#coordinators.set(name, id);
    if (this.#coordinators.size <= REGIONS_MAX) return;
    for (const oldest of this.#coordinators.keys()) {
      this.#coordinators.delete(oldest);
      return;
    }
  }
}

function regionName({ blob, region }: ClaimRequest): string {
  return `${region} ${blob}`;
}
