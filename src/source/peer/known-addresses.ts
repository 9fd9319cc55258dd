import type { PeerAddress } from './messages.ts';
import type { SwarmNode } from './node.ts';
import type { KnownPeer, PeerTable } from './peer-table.ts';

/** A peer as it is named to others. */
export function addressOf({ multihash, host, port }: KnownPeer): PeerAddress {
  return { id: multihash, host, port };
}

/** Takes note of peers that an answer named; gives their ids, in order, undefined for those that make no sense. */
export function hearAll(
  { table, node }: { table: PeerTable; node: SwarmNode },
  peers: readonly PeerAddress[],
): (string | undefined)[] {
  return peers.map(({ id: multihash, host, port }) => {
    const id = node.idOf(multihash);
    if (id !== undefined && port !== 0) table.hear({ id, multihash, host, port });
    return id;
  });
}
