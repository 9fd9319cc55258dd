import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Digest, sha256 } from '../../../src/core/digest.ts';
import { hasCode } from '../../../src/errors.ts';
import {
  decodeClaim,
  decodeClaims,
  decodeSettle,
  encodeClaim,
  encodeClaims,
  encodeSettle,
} from '../../../src/source/peer/claim-messages.ts';
import { createFrameParser, encodeFrame, type Frame } from '../../../src/source/peer/frames.ts';
import { SWARM_LIMITS } from '../../../src/source/peer/limits.ts';
import {
  decodeDigest,
  decodeHello,
  decodeKey,
  decodeKeys,
  decodeMap,
  decodePeers,
  encodeDigest,
  encodeHello,
  encodeMap,
  encodePeers,
} from '../../../src/source/peer/messages.ts';

const DIGESTS: Digest[] = [sha256('a'), `sha512:${'ab'.repeat(64)}` as Digest, `blake3:${'cd'.repeat(32)}` as Digest];
const HELLO = {
  version: 1,
  instance: randomBytes(8),
  listenPort: 7946,
  dataPort: 7947,
  fingerprint: randomBytes(32),
  zone: 'rack-7',
};
const PEERS = [
  { id: randomBytes(38), host: '10.1.2.3', port: 7946 },
  { id: randomBytes(38), host: '2001:db8:0:0:0:0:0:7', port: 1 },
];
const CLAIM = { blob: sha256('blob'), region: 4_000_000_000, digests: DIGESTS };
const CLAIMS = {
  peers: PEERS,
  answers: [
    { kind: 'granted', leaseMs: 10_000 },
    { kind: 'ask', holders: [1, 0] },
    { kind: 'ask', holders: [0] },
  ] as const,
};

/** Every decoder, with bytes it accepts. */
const DECODERS: Record<string, readonly [(body: Uint8Array) => unknown, Uint8Array]> = {
  hello: [decodeHello, encodeHello(HELLO)],
  peers: [decodePeers, encodePeers(PEERS)],
  keys: [decodeKeys, randomBytes(96)],
  key: [decodeKey, randomBytes(32)],
  digest: [decodeDigest, encodeDigest(DIGESTS[1] as Digest)],
  map: [decodeMap, encodeMap({ rows: 19, bits: Uint8Array.of(1, 2, 3) })],
  claim: [decodeClaim, encodeClaim(CLAIM)],
  settle: [decodeSettle, encodeSettle(CLAIM, 'held')],
  claims: [(body) => decodeClaims(body, 3), encodeClaims(CLAIMS)],
};

test('messages come back as they were', () => {
  const plain = (value: unknown) =>
    JSON.stringify(value, (_, part) => (part instanceof Uint8Array ? Buffer.from(part).toString('hex') : part));
  assert.equal(
    plain({ ...decodeHello(encodeHello(HELLO)) }),
    plain({ ...HELLO, instance: Uint8Array.from(HELLO.instance), fingerprint: Uint8Array.from(HELLO.fingerprint) }),
  );
  assert.equal(
    plain(decodePeers(encodePeers(PEERS)).map(({ host, port }) => [host, port])),
    plain(PEERS.map(({ host, port }) => [host, port])),
  );
  for (const digest of DIGESTS) assert.equal(decodeDigest(encodeDigest(digest)), digest);
  assert.deepEqual(decodeClaim(encodeClaim(CLAIM)), CLAIM);
  assert.deepEqual(decodeSettle(encodeSettle(CLAIM, 'failed')), { request: CLAIM, outcome: 'failed' });
  assert.deepEqual(decodeClaims(encodeClaims(CLAIMS), 3).answers, CLAIMS.answers);
  const map = decodeMap(encodeMap({ rows: 19, bits: Uint8Array.of(1, 2, 0xff) }));
  assert.deepEqual([map?.rows, ...(map?.bits ?? [])], [19, 1, 2, 0b111]);
  assert.equal(decodeMap(encodeMap(undefined)), undefined);
});

test('addresses of both families come back, in whatever form they were written', () => {
  for (const [host, expected] of [
    ['::1', '0:0:0:0:0:0:0:1'],
    ['fe80::1:2', 'fe80:0:0:0:0:0:1:2'],
    ['::ffff:10.0.0.1', '0:0:0:0:0:ffff:a00:1'],
    ['255.0.1.2', '255.0.1.2'],
  ]) {
    const [peer] = decodePeers(encodePeers([{ id: randomBytes(38), host: host as string, port: 9 }]));
    assert.equal(peer?.host, expected);
  }
});

for (const [name, [decode, valid]] of Object.entries(DECODERS)) {
  const isRefusal = (error: unknown): boolean => hasCode(error, 'PEER_PROTOCOL');
  test(`${name}: random, cut, lengthened and changed bytes are decoded or refused, nothing else`, () => {
    decode(valid);
    const tries = fc.oneof(
      fc.uint8Array({ maxLength: 300 }),
      fc.nat(valid.length).map((end) => valid.subarray(0, end)),
      fc.uint8Array({ minLength: 1, maxLength: 40 }).map((more) => Buffer.concat([valid, more])),
      fc
        .tuple(fc.nat(valid.length - 1), fc.nat(255))
        .map(([at, byte]) => valid.map((old, i) => (i === at ? byte : old))),
    );
    fc.assert(
      fc.property(tries, (bytes) => {
        try {
          decode(bytes);
        } catch (error) {
          assert.ok(isRefusal(error), String(error));
        }
      }),
      { numRuns: 5_000 },
    );
  });
}

test('counts beyond the limits are refused before anything is built from them', () => {
  const refused = (run: () => unknown) => assert.throws(run, (error) => hasCode(error, 'PEER_PROTOCOL'));
  refused(() => decodePeers(Uint8Array.of(0xff, 0xff)));
  refused(() => decodeKeys(new Uint8Array(32 * (SWARM_LIMITS.keysPerBatch + 1))));
  refused(() => decodeKeys(new Uint8Array(0)));
  refused(() => decodeKeys(new Uint8Array(33)));
  refused(() => decodeMap(Uint8Array.of(0xff, 0xff, 0xff, 0xff)));
  refused(() => decodeHello(encodeHello({ ...HELLO, version: 2 })));
  refused(() => decodeHello(encodeHello({ ...HELLO, zone: 'a\u0007b' })));
  const many = { ...CLAIM, digests: Array.from({ length: SWARM_LIMITS.digestsPerClaim + 1 }, () => sha256('x')) };
  refused(() => decodeClaim(encodeClaim(many)));
  refused(() => decodeClaims(encodeClaims(CLAIMS), 4));
  refused(() => decodeClaims(encodeClaims({ peers: [], answers: [{ kind: 'ask', holders: [0] }] }), 1));
});

test('everything the protocol may say fits into a frame', () => {
  const peer = { id: randomBytes(38), host: 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff', port: 65_535 };
  assert.ok(encodePeers(Array.from({ length: SWARM_LIMITS.peers }, () => peer)).length <= SWARM_LIMITS.frameBytes);
  const digests = Array.from({ length: SWARM_LIMITS.digestsPerClaim }, () => DIGESTS[1] as Digest);
  assert.ok(encodeSettle({ ...CLAIM, digests }, 'held').length <= SWARM_LIMITS.frameBytes);
  const answers = digests.map(() => ({ kind: 'ask', holders: [1, 2, 3] }) as const);
  const peers = Array.from({ length: 1_024 }, () => peer);
  assert.ok(encodeClaims({ peers, answers }).length <= SWARM_LIMITS.frameBytes);
  const rows = SWARM_LIMITS.rowsPerMap;
  assert.ok(encodeMap({ rows, bits: new Uint8Array(rows / 8) }).length <= SWARM_LIMITS.frameBytes);
});

test('frames are put together from pieces cut at any byte', () => {
  const frames = [
    encodeFrame(5, 1, randomBytes(32)),
    encodeFrame(2, 2, new Uint8Array(0)),
    encodeFrame(3, 3, randomBytes(70_000)),
  ];
  const whole = Buffer.concat(frames);
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 9_000 }), { minLength: 1 }), (sizes) => {
      const parser = createFrameParser();
      const seen: Frame[] = [];
      for (let at = 0, turn = 0; at < whole.length; turn += 1) {
        const end = at + (sizes[turn % sizes.length] as number);
        parser.push(whole.subarray(at, end), (frame) => seen.push(frame));
        at = end;
      }
      assert.deepEqual(
        seen.map(({ type, id, body }) => [type, id, body.length]),
        [
          [5, 1, 32],
          [2, 2, 0],
          [3, 3, 70_000],
        ],
      );
      assert.deepEqual(Buffer.from(seen[2]?.body as Uint8Array), whole.subarray(whole.length - 70_000));
    }),
    { numRuns: 100 },
  );
});

test('a frame of a wrong length is refused as soon as its length is there', () => {
  for (const length of [0, 4, SWARM_LIMITS.frameBytes + 6, 0x7fff_ffff, 0xffff_ffff]) {
    const head = Buffer.alloc(4);
    head.writeUInt32BE(length);
    const parser = createFrameParser();
    const never = (): void => assert.fail();
    parser.push(head.subarray(0, 3), never);
    assert.throws(
      () => parser.push(head.subarray(3), never),
      (error) => hasCode(error, 'PEER_PROTOCOL'),
    );
  }
});
