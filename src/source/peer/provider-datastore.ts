import type { KadDHTComponents } from '@libp2p/kad-dht';
import { peerIdFromString } from '@libp2p/peer-id';
import { base32 } from 'multiformats/bases/base32';
import type { Clock } from '../../clock.ts';
import { KEY_BYTES } from './chunk-key.ts';
import type { ProviderIndex } from './provider-index.ts';

type Datastore = KadDHTComponents['datastore'];

/** Where kad-dht keeps provider records: `/dht/provider/<base32 of the multihash>/<peer id>`, value: varint of ms. */
const PREFIX = '/dht/provider/';
const MULTIHASH_HEAD = [0x12, KEY_BYTES];

/**
 * The datastore behind kad-dht (16.4): its provider records are those of the index, so that a stock GET_PROVIDERS finds
 * what was announced in batches and a stock ADD_PROVIDER is kept. It keeps nothing else, and lists nothing: records end
 * by themselves, so the library's reprovider has nothing to do. `isKnown` tells which peers the peer store can describe:
 * naming another one would make the whole answer fail. `admit` limits what one peer adds.
 */
export function createProviderDatastore(components: {
  index: ProviderIndex;
  clock: Pick<Clock, 'nowMs' | 'wallTimeMs'>;
  isKnown: (id: string) => Promise<boolean>;
  admit: (id: string) => boolean;
}): Datastore {
  const { index, clock } = components;
  const store = {
    async put(key: { toString(): string }) {
      const record = parseKey(key.toString());
      if (record?.id !== undefined && components.admit(record.id)) index.add(record.id, record.key, clock.nowMs());
      return key;
    },
    async delete(key: { toString(): string }) {
      const record = parseKey(key.toString());
      if (record?.id !== undefined) index.remove(record.id, record.key);
    },
    async *query({ prefix }: { prefix?: string }) {
      const record = prefix === undefined ? undefined : parseKey(prefix);
      if (record === undefined || record.id !== undefined) return;
      const value = encodeVarint(clock.wallTimeMs());
      for (const id of index.lookup(record.key, clock.nowMs())) {
        if (await components.isKnown(id)) yield { key: { toString: () => `${prefix}/${id}` }, value };
      }
    },
    async has() {
      return false;
    },
    async get(key: { toString(): string }) {
      throw Object.assign(new Error(`${key} is not kept`), { name: 'NotFoundError' });
    },
  };
  return store as unknown as Datastore;
}

/** The key, and the provider when it names one; undefined for anything that is no sha2-256 provider record. */
export function parseKey(text: string): { key: Uint8Array; id: string | undefined } | undefined {
  if (!text.startsWith(PREFIX)) return undefined;
  const [hash = '', id, ...rest] = text.slice(PREFIX.length).split('/');
  if (rest.length > 0 || hash.length > 64) return undefined;
  try {
    const multihash = base32.decode(`b${hash}`);
    if (multihash.byteLength !== 2 + KEY_BYTES || MULTIHASH_HEAD.some((byte, at) => multihash[at] !== byte)) {
      return undefined;
    }
    return { key: multihash.subarray(2), id: id === undefined ? undefined : peerIdFromString(id).toString() };
  } catch {
    return undefined;
  }
}

function encodeVarint(value: number): Uint8Array {
  const bytes: number[] = [];
  let left = Math.floor(value);
  for (; left >= 0x80; left = Math.floor(left / 0x80)) bytes.push((left % 0x80) | 0x80);
  bytes.push(left);
  return Uint8Array.from(bytes);
}
