import { ShoalError } from '../../errors.ts';
import { SWARM_LIMITS } from './limits.ts';

/**
 * One message on a stream of `/shoal/swarm/1.0.0`: length (u32, of what follows), type (u8), request number (u32), body.
 * Big-endian. An answer has the request's number and its type with ANSWER set.
 */
export interface Frame {
  readonly type: number;
  readonly id: number;
  readonly body: Uint8Array;
}

/** Bit of `type` that makes an answer. */
export const ANSWER = 0x80;
/** Type of an answer that refuses; its body is one byte, see REFUSAL. */
export const REFUSED = 0xff;

const LENGTH_BYTES = 4;
const HEAD_BYTES = 5;

/** The bytes of a frame. */
export function encodeFrame(type: number, id: number, body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(LENGTH_BYTES + HEAD_BYTES + body.byteLength);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, HEAD_BYTES + body.byteLength);
  view.setUint8(4, type);
  view.setUint32(5, id);
  bytes.set(body, LENGTH_BYTES + HEAD_BYTES);
  return bytes;
}

/** Puts frames together from pieces of any size; memory is bounded by one frame. */
export interface FrameParser {
  /** Calls `onFrame` for each frame that these bytes complete. Throws PEER_PROTOCOL as soon as a length is wrong. */
  push(bytes: Uint8Array, onFrame: (frame: Frame) => void): void;
}

/** A parser for one direction of one stream. */
export function createFrameParser(init: { maxBytes?: number } = {}): FrameParser {
  const maxBytes = init.maxBytes ?? SWARM_LIMITS.frameBytes;
  const head = new Uint8Array(LENGTH_BYTES);
  let headUsed = 0;
  /** The frame under way; undefined while its length is read. */
  let frame: Uint8Array | undefined;
  let used = 0;

  function begin(): void {
    const length = new DataView(head.buffer).getUint32(0);
    if (length < HEAD_BYTES || length > maxBytes + HEAD_BYTES) {
      throw new ShoalError('PEER_PROTOCOL', `a frame of ${length} bytes`);
    }
    frame = new Uint8Array(length);
    used = 0;
    headUsed = 0;
  }

  return {
    push(bytes, onFrame) {
      for (let at = 0; at < bytes.byteLength; ) {
        if (frame === undefined) {
          const part = bytes.subarray(at, at + LENGTH_BYTES - headUsed);
          head.set(part, headUsed);
          headUsed += part.byteLength;
          at += part.byteLength;
          if (headUsed === LENGTH_BYTES) begin();
          continue;
        }
        const part = bytes.subarray(at, at + frame.byteLength - used);
        frame.set(part, used);
        used += part.byteLength;
        at += part.byteLength;
        if (used < frame.byteLength) continue;
        const whole = frame;
        frame = undefined;
        onFrame(frameOf(whole));
      }
    },
  };
}

function frameOf(bytes: Uint8Array): Frame {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return { type: view.getUint8(0), id: view.getUint32(1), body: bytes.subarray(HEAD_BYTES) };
}
