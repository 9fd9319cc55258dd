import type { Digest } from '../../core/digest.ts';
import { CLAIM_LIMITS } from '../../core/policy/claim-limits.ts';
import { ShoalError } from '../../errors.ts';
import { ByteReader, ByteWriter } from './bytes.ts';
import type { ClaimRequest } from './directory.ts';
import { SWARM_LIMITS } from './limits.ts';
import { type PeerAddress, readPeers, writePeer } from './messages.ts';

/** An answer to one claimed chunk, its holders by their place in the list of peers that comes with it. */
export type WireClaim =
  | { readonly kind: 'granted'; readonly leaseMs: number }
  | { readonly kind: 'ask'; readonly holders: readonly number[] };

/** Answers to a claim, one per chunk, in order. */
export interface WireClaims {
  readonly peers: readonly PeerAddress[];
  readonly answers: readonly WireClaim[];
}

const GRANTED = 0xff;
/** Holders of all chunks of one claim together. */
const PEERS_MAX = 1_024;

/** Bytes of a claim. */
export function encodeClaim({ blob, region, digests }: ClaimRequest): Uint8Array {
  const writer = new ByteWriter().digest(blob).u32(region).u16(digests.length);
  for (const digest of digests) writer.digest(digest);
  return writer.done();
}

/** Parses a claim. Throws PEER_PROTOCOL. */
export function decodeClaim(body: Uint8Array): ClaimRequest {
  const reader = new ByteReader(body);
  const request = readClaim(reader);
  reader.end();
  return request;
}

/** Bytes of a settlement: a claim's fields after one byte, 1 for `held`. */
export function encodeSettle(request: ClaimRequest, outcome: 'held' | 'failed'): Uint8Array {
  return Buffer.concat([Uint8Array.of(outcome === 'held' ? 1 : 0), encodeClaim(request)]);
}

/** Parses a settlement. Throws PEER_PROTOCOL. */
export function decodeSettle(body: Uint8Array): { request: ClaimRequest; outcome: 'held' | 'failed' } {
  const reader = new ByteReader(body);
  const flag = reader.u8();
  if (flag > 1) throw new ShoalError('PEER_PROTOCOL', `outcome ${flag}`);
  const request = readClaim(reader);
  reader.end();
  return { request, outcome: flag === 1 ? 'held' : 'failed' };
}

/** Bytes of the answers to a claim. */
export function encodeClaims({ peers, answers }: WireClaims): Uint8Array {
  const writer = new ByteWriter().u16(peers.length);
  for (const peer of peers) writePeer(writer, peer);
  writer.u16(answers.length);
  for (const answer of answers) {
    if (answer.kind === 'granted') writer.u8(GRANTED).u32(Math.max(0, Math.ceil(answer.leaseMs)));
    else {
      writer.u8(answer.holders.length);
      for (const holder of answer.holders) writer.u16(holder);
    }
  }
  return writer.done();
}

/** Parses the answers to a claim of `count` chunks. Throws PEER_PROTOCOL. */
export function decodeClaims(body: Uint8Array, count: number): WireClaims {
  const reader = new ByteReader(body);
  const peers = readPeers(reader, PEERS_MAX);
  const answered = reader.u16();
  if (answered !== count) throw new ShoalError('PEER_PROTOCOL', `${answered} answers to ${count} claims`);
  const answers = Array.from({ length: count }, () => readAnswer(reader, peers.length));
  reader.end();
  return { peers, answers };
}

function readAnswer(reader: ByteReader, peers: number): WireClaim {
  const kind = reader.u8();
  if (kind === GRANTED) {
    const leaseMs = reader.u32();
    return { kind: 'granted', leaseMs: Math.min(leaseMs, CLAIM_LIMITS.leaseLongestMs) };
  }
  if (kind === 0 || kind > CLAIM_LIMITS.holders) throw new ShoalError('PEER_PROTOCOL', `${kind} holders`);
  const holders = Array.from({ length: kind }, () => reader.u16());
  if (holders.some((holder) => holder >= peers)) throw new ShoalError('PEER_PROTOCOL', 'a holder that is not listed');
  return { kind: 'ask', holders };
}

function readClaim(reader: ByteReader): ClaimRequest {
  const blob = reader.digest();
  const region = reader.u32();
  const count = reader.u16();
  if (count === 0 || count > SWARM_LIMITS.digestsPerClaim) {
    throw new ShoalError('PEER_PROTOCOL', `a claim of ${count} chunks`);
  }
  const digests: Digest[] = Array.from({ length: count }, () => reader.digest());
  return { blob, region, digests };
}
