import { noise } from '@chainsafe/libp2p-noise';
import { identify } from '@libp2p/identify';
import type { Libp2p } from '@libp2p/interface';
import { type KadDHT, kadDHT, passthroughMapper } from '@libp2p/kad-dht';
import { ping } from '@libp2p/ping';
import { preSharedKey } from '@libp2p/pnet';
import { tcp } from '@libp2p/tcp';
import { yamux } from '@libp2p/yamux';
import { multiaddr } from '@multiformats/multiaddr';
import { createLibp2p } from 'libp2p';
import { CID } from 'multiformats/cid';
import * as raw from 'multiformats/codecs/raw';
import * as multihash from 'multiformats/hashes/digest';
import { type Digest, digestBytes } from '../../../src/core/digest.ts';
import { encodeSwarmKey, type SwarmKey } from '../../../src/source/peer/swarm-key.ts';

/** A libp2p node with nothing of ours: the library's own DHT on the swarm's protocol name. `key` undefined: no PSK. */
export async function stockNode(key: SwarmKey | undefined): Promise<Libp2p<{ dht: KadDHT }>> {
  return (await createLibp2p({
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
    transports: [tcp()],
    ...(key === undefined ? {} : { connectionProtector: preSharedKey({ psk: encodeSwarmKey(key) }) }),
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    services: {
      identify: identify(),
      ping: ping(),
      dht: kadDHT({ protocol: '/shoal/kad/1.0.0', clientMode: false, peerInfoMapper: passthroughMapper }),
    },
  })) as unknown as Libp2p<{ dht: KadDHT }>;
}

/** The address of a node on loopback. */
export function loopback(port: number) {
  return multiaddr(`/ip4/127.0.0.1/tcp/${port}`);
}

/** The CID of a sha256 chunk. */
export function cidOf(digest: Digest): CID {
  return CID.createV1(raw.code, multihash.create(0x12, digestBytes(digest)));
}

/** Ids that the library's own search gives. */
export async function stockFind(node: Libp2p<{ dht: KadDHT }>, digest: Digest, forMs = 10_000): Promise<string[]> {
  const found = new Set<string>();
  const signal = AbortSignal.timeout(forMs);
  try {
    for await (const event of node.services.dht.findProviders(cidOf(digest), { signal })) {
      if (event.name === 'PROVIDER') for (const { id } of event.providers) found.add(id.toString());
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
  return [...found].sort();
}
