import type { Stream } from '@libp2p/interface';
import { atMost } from '../../core/turns.ts';
import { ShoalError } from '../../errors.ts';
import { ANSWER, createFrameParser, encodeFrame, type Frame, REFUSED } from './frames.ts';
import { SWARM_LIMITS } from './limits.ts';

/** The asking side of one long-lived stream: many requests under way, answers in any order. */
export interface RequestStream {
  /** The answer's body. Throws UNAVAILABLE when the stream ends or the peer refuses, DEADLINE_EXCEEDED, the signal's reason. */
  request(type: number, body: Uint8Array, options: { timeoutMs: number; signal?: AbortSignal }): Promise<Uint8Array>;
  readonly isOpen: boolean;
  close(): void;
}

interface Waiting {
  readonly type: number;
  resolve(body: Uint8Array): void;
  reject(error: unknown): void;
}

/** Asks over `stream`; `onOffence` hears of answers that break the protocol, after which the stream is reset. */
export function createRequestStream(stream: Stream, onOffence: (error: ShoalError) => void): RequestStream {
  const waiting = new Map<number, Waiting>();
  const inTurn = atMost(SWARM_LIMITS.requestsPerStream);
  let lastId = 0;
  let closed: ShoalError | undefined;

  const end = (error: ShoalError): void => {
    closed ??= error;
    for (const { reject } of waiting.values()) reject(error);
    waiting.clear();
  };

  function onFrame(frame: Frame): void {
    if (frame.id === 0 || frame.id > lastId) throw new ShoalError('PEER_PROTOCOL', 'an answer to no request');
    const request = waiting.get(frame.id);
    // Nobody waits any more: it came too late.
    if (request === undefined) return;
    waiting.delete(frame.id);
    if (frame.type === REFUSED) request.reject(new ShoalError('UNAVAILABLE', 'the peer refused'));
    else if (frame.type === (request.type | ANSWER)) request.resolve(frame.body);
    else throw new ShoalError('PEER_PROTOCOL', `an answer of type ${frame.type}`);
  }

  listen(stream, onFrame, onOffence);
  stream.addEventListener('close', () => end(new ShoalError('UNAVAILABLE', 'the stream to the peer ended')));

  async function exchange(
    type: number,
    body: Uint8Array,
    { timeoutMs, signal }: { timeoutMs: number; signal?: AbortSignal },
  ): Promise<Uint8Array> {
    if (closed !== undefined) throw closed;
    signal?.throwIfAborted();
    await drained(stream, timeoutMs);
    if (closed !== undefined) throw closed;
    lastId = lastId === 0xffff_ffff ? 1 : lastId + 1;
    const id = lastId;
    const answer = Promise.withResolvers<Uint8Array>();
    waiting.set(id, { type, resolve: answer.resolve, reject: answer.reject });
    const late = (): void => answer.reject(new ShoalError('DEADLINE_EXCEEDED', `no answer in ${timeoutMs} ms`));
    const timer = setTimeout(late, timeoutMs);
    const onAbort = (): void => answer.reject(signal?.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      stream.send(encodeFrame(type, id, body));
      return await answer.promise;
    } catch (cause) {
      if (cause instanceof ShoalError || signal?.aborted === true) throw cause;
      throw new ShoalError('UNAVAILABLE', 'the stream to the peer ended', { cause });
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      waiting.delete(id);
    }
  }

  return {
    request: (type, body, options) => inTurn(() => exchange(type, body, options)),
    get isOpen() {
      return closed === undefined;
    },
    close() {
      end(new ShoalError('UNAVAILABLE', 'the stream to the peer was closed'));
      stream.abort(new Error('closed'));
    },
  };
}

/** Waits until the stream takes more. Throws UNAVAILABLE when it ends before, or does not in time. */
async function drained(stream: Stream, timeoutMs: number): Promise<void> {
  if (!stream.writableNeedsDrain) return;
  try {
    await stream.onDrain({ signal: AbortSignal.timeout(timeoutMs) });
  } catch (cause) {
    throw new ShoalError('UNAVAILABLE', 'the peer does not read', { cause });
  }
}

/** Answers one request; throws PEER_PROTOCOL for a bad one. `undefined` refuses it. */
export type Answer = (type: number, body: Uint8Array) => Uint8Array | undefined | Promise<Uint8Array | undefined>;

/** Requests that may wait on our side before reading pauses. */
const QUEUE_MAX = 16;

/** Answers the requests of `stream` one after the other. `delayMs` slows a peer down that asks too much. */
export function serveStream(
  stream: Stream,
  parts: { answer: Answer; delayMs: (type: number) => number; onOffence: (error: ShoalError) => void },
): void {
  const queue: Frame[] = [];
  let isBusy = false;

  const fail = (error: unknown): void => {
    queue.length = 0;
    if (error instanceof ShoalError && error.code === 'PEER_PROTOCOL') parts.onOffence(error);
    stream.abort(error instanceof Error ? error : new Error(String(error)));
  };

  async function work(): Promise<void> {
    isBusy = true;
    for (let frame = queue.shift(); frame !== undefined && stream.status === 'open'; frame = queue.shift()) {
      const delayMs = parts.delayMs(frame.type);
      if (delayMs > 0) await new Promise((resolve) => setTimeout(resolve, delayMs));
      const answer = await parts.answer(frame.type, frame.body);
      if (stream.status !== 'open') return;
      const [type, body] = answer === undefined ? [REFUSED, new Uint8Array(1)] : [frame.type | ANSWER, answer];
      stream.send(encodeFrame(type, frame.id, body));
      // Who does not read its answers is not read either.
      await drained(stream, SWARM_LIMITS.ackTimeoutMs);
    }
    isBusy = false;
    if (stream.readStatus === 'paused') stream.resume();
  }

  listen(
    stream,
    (frame) => {
      if (frame.type === 0 || frame.type >= ANSWER || frame.id === 0) {
        throw new ShoalError('PEER_PROTOCOL', `a request of type ${frame.type}`);
      }
      queue.push(frame);
      if (queue.length >= QUEUE_MAX && stream.readStatus === 'readable') stream.pause();
      if (!isBusy) work().catch(fail);
    },
    parts.onOffence,
  );
  stream.addEventListener('remoteCloseWrite', () => void stream.close().catch(() => undefined));
}

function listen(stream: Stream, onFrame: (frame: Frame) => void, onOffence: (error: ShoalError) => void): void {
  const parser = createFrameParser();
  // What comes while reading pauses: the window, and what it was widened by a moment before.
  stream.maxReadBufferLength = 2 * SWARM_LIMITS.streamWindowBytes;
  stream.addEventListener('message', ({ data }) => {
    if (stream.status !== 'open') return;
    try {
      for (const part of data instanceof Uint8Array ? [data] : data) parser.push(part, onFrame);
    } catch (error) {
      if (error instanceof ShoalError) onOffence(error);
      stream.abort(error instanceof Error ? error : new Error(String(error)));
    }
  });
}
