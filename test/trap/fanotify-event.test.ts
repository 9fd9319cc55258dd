import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { decodeEvent, emptyEvent } from '../../src/trap/fanotify/event.ts';

const WHOLE_FILE = Number.MAX_SAFE_INTEGER;

/** One event as the kernel lays it out, with the given info records after the header. */
function encode(records: Uint8Array[], { version = 3, metadataLength = 24, eventLength = -1 } = {}): Uint8Array {
  const tail = Buffer.concat(records);
  const bytes = Buffer.alloc(24 + tail.length);
  bytes.writeUInt32LE(eventLength === -1 ? bytes.length : eventLength, 0);
  bytes.writeUInt8(version, 4);
  bytes.writeUInt16LE(metadataLength, 6);
  bytes.writeBigUInt64LE(0x100000n, 8);
  bytes.writeInt32LE(31, 16);
  bytes.writeInt32LE(4242, 20);
  tail.copy(bytes, 24);
  return bytes;
}

function rangeRecord(offset: bigint, count: bigint, { type = 6, length = 24 } = {}): Uint8Array {
  const bytes = Buffer.alloc(24);
  bytes.writeUInt8(type, 0);
  bytes.writeUInt16LE(length, 2);
  bytes.writeBigUInt64LE(offset, 8);
  bytes.writeBigUInt64LE(count, 16);
  return bytes;
}

function decode(bytes: Uint8Array) {
  const event = emptyEvent();
  const next = decodeEvent(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), 0, bytes.byteLength, event);
  return { next, ...event };
}

describe('decodeEvent', () => {
  it('reads descriptor, process and range', () => {
    const { next, fd, pid, offset, length, wellFormed } = decode(encode([rangeRecord(8192n, 131072n)]));
    assert.deepEqual(
      { next, fd, pid, offset, length, wellFormed },
      { next: 48, fd: 31, pid: 4242, offset: 8192, length: 131072, wellFormed: true },
    );
  });

  it('takes a missing range for the whole file, and count 0 for what it is', () => {
    assert.deepEqual([decode(encode([])).offset, decode(encode([])).length], [0, WHOLE_FILE]);
    assert.equal(decode(encode([rangeRecord(4096n, 0n)])).length, 0);
  });

  it('skips records of other kinds', () => {
    const { length, wellFormed } = decode(encode([rangeRecord(0n, 0n, { type: 4 }), rangeRecord(0n, 4096n)]));
    assert.deepEqual([length, wellFormed], [4096, true]);
  });

  it('calls an event malformed whose records make no sense, and still finds the next one', () => {
    const bad = [
      encode([rangeRecord(0n, 4096n), rangeRecord(4096n, 4096n)]),
      encode([rangeRecord(0n, 4096n, { length: 0 })]),
      encode([rangeRecord(0n, 4096n, { length: 16 })]),
      encode([rangeRecord(0n, 4096n, { length: 4000 })]),
      encode([rangeRecord(2n ** 63n, 4096n)]),
      encode([rangeRecord(2n ** 53n - 4096n, 8192n)]),
      encode([Buffer.from([6, 0])]),
    ];
    for (const bytes of bad) {
      const { next, wellFormed, fd } = decode(bytes);
      assert.deepEqual([next, wellFormed, fd], [bytes.length, false, 31]);
    }
  });

  it('refuses a header that cannot be trusted', () => {
    const records = [rangeRecord(0n, 4096n)];
    for (const header of [
      { version: 4 },
      { metadataLength: 23 },
      { metadataLength: 60 },
      { eventLength: 0 },
      { eventLength: 23 },
      { eventLength: 49 },
    ]) {
      assert.equal(decode(encode(records, header)).next, -1, JSON.stringify(header));
    }
    assert.equal(decode(encode(records).subarray(0, 23)).next, -1);
  });

  it('survives any bytes and always moves forward', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.boolean(), (bytes, plausible) => {
        if (plausible && bytes.length >= 8) bytes.set([bytes.length, 0, 0, 0, 3, 0, 24, 0]);
        const { next, offset, length, wellFormed } = decode(bytes);
        assert.ok(next === -1 || (next >= 24 && next <= bytes.length));
        if (next !== -1 && wellFormed) assert.ok(Number.isSafeInteger(offset) && length >= 0);
      }),
      { numRuns: 5000 },
    );
  });
});
