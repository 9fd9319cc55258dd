import type { Clock } from '../../clock.ts';
import type { ClaimLedger } from '../../core/policy/claim-ledger.ts';
import { ShoalError } from '../../errors.ts';
import { decodeClaim, decodeSettle } from './claim-messages.ts';
import type { Claims } from './claims.ts';
import type { HeldChunks } from './directory.ts';
import { addressOf } from './known-addresses.ts';
import { SWARM_LIMITS } from './limits.ts';
import type { Handler } from './links.ts';
import { decodeDigest, decodeKey, decodeKeys, encodeMap, encodePeers, MESSAGE } from './messages.ts';
import type { KnownPeer, PeerTable } from './peer-table.ts';
import type { ProviderIndex } from './provider-index.ts';

/** Says only that it is done. */
const DONE = new Uint8Array(0);

/** Answers what greeted peers ask: from the index, the table, the ledger and what is held. Nothing else is touched. */
export function createHandler(components: {
  table: PeerTable;
  index: ProviderIndex;
  clock: Clock;
  held: HeldChunks;
  claims: Claims;
  ledger: ClaimLedger;
}): Handler {
  const { table, index, clock, held, claims, ledger } = components;

  function peersFor(from: string): Uint8Array {
    const known = table.members.filter(({ id, port }) => id !== from && id !== table.self.id && port !== 0);
    return encodePeers(known.slice(0, SWARM_LIMITS.peers).map(addressOf));
  }

  function providersOf(key: Uint8Array, from: string): Uint8Array {
    const providers = index
      .lookup(key, clock.nowMs())
      .filter((id) => id !== from)
      .map((id): KnownPeer | undefined => (id === table.self.id ? table.self : table.get(id)))
      .filter((peer) => peer !== undefined && (peer.connected || peer.failures === 0));
    return encodePeers(providers.map((peer) => addressOf(peer as KnownPeer)));
  }

  return (from, type, body) => {
    switch (type) {
      case MESSAGE.peers:
        if (body.byteLength > 0) throw new ShoalError('PEER_PROTOCOL', 'a question for peers has no body');
        return peersFor(from);
      case MESSAGE.announce:
        index.add(from, decodeKeys(body), clock.nowMs());
        return DONE;
      case MESSAGE.withdraw:
        index.remove(from, decodeKeys(body));
        return DONE;
      case MESSAGE.find:
        return providersOf(decodeKey(body), from);
      case MESSAGE.have:
        return encodeMap(held.haveMap(decodeDigest(body)));
      case MESSAGE.claim:
        return claims.answer(from, decodeClaim(body));
      case MESSAGE.settle: {
        const { request, outcome } = decodeSettle(body);
        for (const digest of request.digests) ledger.settle(from, digest, outcome);
        return DONE;
      }
      default:
        throw new ShoalError('PEER_PROTOCOL', `a request of type ${type}`);
    }
  };
}
