import { isIPv4 } from 'node:net';
import type { Digest } from '../../core/digest.ts';
import { ShoalError } from '../../errors.ts';
import { ByteReader, ByteWriter } from './bytes.ts';
import { KEY_BYTES } from './chunk-key.ts';
import type { HaveMap } from './directory.ts';
import { SWARM_LIMITS } from './limits.ts';

/** Types of requests. Peers name digests, keys and each other: no URL, no path, no list of what somebody holds. */
export const MESSAGE = {
  hello: 1,
  peers: 2,
  announce: 3,
  withdraw: 4,
  find: 5,
  have: 6,
  claim: 7,
  settle: 8,
} as const;

/** Version of the messages; a Hello of another one is refused. */
export const PROTOCOL_VERSION = 1;

/** What a node says of itself on each connection. */
export interface Hello {
  readonly version: number;
  /** Drawn when the process starts: a peer that restarted has forgotten what was announced to it. */
  readonly instance: Uint8Array;
  /** Where it takes swarm connections; 0 when it takes none. */
  readonly listenPort: number;
  readonly dataPort: number;
  /** SHA-256 of its TLS certificate, 32 bytes. */
  readonly fingerprint: Uint8Array;
  readonly zone: string;
}

/** Bytes of `Hello.instance`. */
export const INSTANCE_BYTES = 8;

/** A peer as others name it: its id (a multihash), and where it takes swarm connections. */
export interface PeerAddress {
  readonly id: Uint8Array;
  readonly host: string;
  readonly port: number;
}

/** Longest multihash of a peer id: Ed25519 keys take 38 bytes. */
const ID_BYTES_MAX = 64;
const FINGERPRINT_BYTES = 32;

/** Bytes of a Hello. */
export function encodeHello(hello: Hello): Uint8Array {
  const zone = Buffer.from(hello.zone);
  return new ByteWriter()
    .u8(hello.version)
    .put(hello.instance)
    .u16(hello.listenPort)
    .u16(hello.dataPort)
    .put(hello.fingerprint)
    .u8(zone.byteLength)
    .put(zone)
    .done();
}

/** Parses a Hello. Throws PEER_PROTOCOL. */
export function decodeHello(body: Uint8Array): Hello {
  const reader = new ByteReader(body);
  const version = reader.u8();
  if (version !== PROTOCOL_VERSION) throw new ShoalError('PEER_PROTOCOL', `protocol version ${version}`);
  const instance = reader.take(INSTANCE_BYTES);
  const listenPort = reader.u16();
  const dataPort = reader.u16();
  const fingerprint = reader.take(FINGERPRINT_BYTES);
  const length = reader.u8();
  if (length > SWARM_LIMITS.zoneBytes) throw new ShoalError('PEER_PROTOCOL', `a zone of ${length} bytes`);
  const zone = textOf(reader.take(length));
  reader.end();
  return { version, instance, listenPort, dataPort, fingerprint, zone };
}

/** Bytes of a list of peers. */
export function encodePeers(peers: readonly PeerAddress[]): Uint8Array {
  const writer = new ByteWriter().u16(peers.length);
  for (const peer of peers) writePeer(writer, peer);
  return writer.done();
}

/** Parses a list of peers. Throws PEER_PROTOCOL. */
export function decodePeers(body: Uint8Array, most: number = SWARM_LIMITS.peers): PeerAddress[] {
  const reader = new ByteReader(body);
  const peers = readPeers(reader, most);
  reader.end();
  return peers;
}

/** Checks a body of packed keys and gives it back. Throws PEER_PROTOCOL. */
export function decodeKeys(body: Uint8Array): Uint8Array {
  const count = body.byteLength / KEY_BYTES;
  if (!Number.isInteger(count) || count === 0 || count > SWARM_LIMITS.keysPerBatch) {
    throw new ShoalError('PEER_PROTOCOL', `keys of ${body.byteLength} bytes`);
  }
  return body;
}

/** Checks the body of a find and gives its key. Throws PEER_PROTOCOL. */
export function decodeKey(body: Uint8Array): Uint8Array {
  if (body.byteLength !== KEY_BYTES) throw new ShoalError('PEER_PROTOCOL', `a key of ${body.byteLength} bytes`);
  return body;
}

/** Bytes of a digest alone: the request of a have-map. */
export function encodeDigest(digest: Digest): Uint8Array {
  return new ByteWriter().digest(digest).done();
}

/** Parses a digest alone. Throws PEER_PROTOCOL. */
export function decodeDigest(body: Uint8Array): Digest {
  const reader = new ByteReader(body);
  const digest = reader.digest();
  reader.end();
  return digest;
}

/** Bytes of a have-map; none when the blob is unknown, or too large to tell. */
export function encodeMap(map: HaveMap | undefined): Uint8Array {
  if (map === undefined || map.rows > SWARM_LIMITS.rowsPerMap) return new Uint8Array(0);
  return new ByteWriter()
    .u32(map.rows)
    .put(map.bits.subarray(0, Math.ceil(map.rows / 8)))
    .done();
}

/** Parses a have-map; bits beyond the last row are cleared. Throws PEER_PROTOCOL. */
export function decodeMap(body: Uint8Array): HaveMap | undefined {
  if (body.byteLength === 0) return undefined;
  const reader = new ByteReader(body);
  const rows = reader.u32();
  if (rows > SWARM_LIMITS.rowsPerMap) throw new ShoalError('PEER_PROTOCOL', `a map of ${rows} rows`);
  const bits = reader.take(Math.ceil(rows / 8)).slice();
  reader.end();
  if (rows % 8 !== 0) bits[bits.length - 1] = (bits.at(-1) as number) & ((1 << (rows % 8)) - 1);
  return { rows, bits };
}

/** Adds one peer to a message. */
export function writePeer(writer: ByteWriter, { id, host, port }: PeerAddress): void {
  const address = addressBytes(host);
  writer.u8(id.byteLength).put(id).u8(address.byteLength).put(address).u16(port);
}

/** Reads a counted list of peers from a message. Throws PEER_PROTOCOL. */
export function readPeers(reader: ByteReader, most: number): PeerAddress[] {
  const count = reader.u16();
  if (count > most) throw new ShoalError('PEER_PROTOCOL', `${count} peers`);
  return Array.from({ length: count }, () => {
    const idLength = reader.u8();
    if (idLength === 0 || idLength > ID_BYTES_MAX)
      throw new ShoalError('PEER_PROTOCOL', `a peer id of ${idLength} bytes`);
    const id = reader.take(idLength).slice();
    const host = addressText(reader.take(reader.u8()));
    return { id, host, port: reader.u16() };
  });
}

function addressBytes(host: string): Uint8Array {
  if (isIPv4(host)) return Uint8Array.from(host.split('.'), Number);
  const [head = '', tail] = host.split('::');
  const words = (part: string): number[] => part.split(':').filter(Boolean).flatMap(wordsOf);
  const before = words(head);
  const after = tail === undefined ? [] : words(tail);
  const bytes = new Uint8Array(16);
  for (const [index, word] of before.entries()) new DataView(bytes.buffer).setUint16(2 * index, word);
  for (const [index, word] of after.entries()) {
    new DataView(bytes.buffer).setUint16(16 - 2 * (after.length - index), word);
  }
  return bytes;
}

function wordsOf(part: string): number[] {
  if (!isIPv4(part)) return [Number.parseInt(part, 16)];
  const [a = 0, b = 0, c = 0, d = 0] = part.split('.').map(Number);
  return [(a << 8) | b, (c << 8) | d];
}

function addressText(bytes: Uint8Array): string {
  if (bytes.byteLength === 4) return bytes.join('.');
  if (bytes.byteLength !== 16) throw new ShoalError('PEER_PROTOCOL', `an address of ${bytes.byteLength} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return Array.from({ length: 8 }, (_, index) => view.getUint16(2 * index).toString(16)).join(':');
}

/** Printable ASCII only: it is shown to people and compared with the configuration. */
function textOf(bytes: Uint8Array): string {
  if (bytes.some((byte) => byte < 0x20 || byte > 0x7e))
    throw new ShoalError('PEER_PROTOCOL', 'a zone that is not plain text');
  return Buffer.from(bytes).toString('latin1');
}
