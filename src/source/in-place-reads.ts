import type { Socket } from 'node:net';
import type { Dispatcher } from 'undici';

/**
 * Bytes of one read at most: a TLS record gives 16 KiB, plain TCP what has come. One buffer for all connections, as what
 * is read is used up before anything else is.
 */
const BUFFER_BYTES = 256 * 1024;

/** What a connection has read and nobody has taken yet, in the buffer that all share. */
interface Reading {
  view: Buffer | undefined;
}

const readings = new WeakMap<Socket, Reading>();
/** The connection whose bytes are being used now. */
let current: Socket | undefined;

/**
 * Options for undici's connector: what comes is handed to its parser in one buffer that is used again, instead of in a
 * new one per read. Each new one counts as memory outside the heap, and every 64 MiB of that V8 marks the whole heap:
 * at 300 MB/s that was a third of the processor time. Handlers must copy what `onResponseData` gives them before they
 * return; requests whose handlers keep it go through `copied`.
 */
export const inPlaceReads = {
  onread: { buffer: Buffer.allocUnsafeSlow(BUFFER_BYTES), callback: onBytes },
} as const;

/** For requests whose bodies are kept as they come (`request`, `stream`) over connections that read in place. */
export const copied: Dispatcher.DispatcherComposeInterceptor = (dispatch) => (options, handler) =>
  dispatch(options, {
    onRequestStart: (...call) => handler.onRequestStart?.(...call),
    onResponseStart: (...call) => handler.onResponseStart?.(...call),
    onResponseData: (controller, chunk) => handler.onResponseData?.(controller, Buffer.from(chunk)),
    onResponseEnd: (...call) => handler.onResponseEnd?.(...call),
    onResponseError: (...call) => handler.onResponseError?.(...call),
  });

/** Returns false when no more is to be read for now, as `onread` wants it. */
function onBytes(this: Socket, count: number, buffer: Uint8Array): boolean {
  if (current !== undefined) {
    // A read within a read overwrote what the other was being used from: neither can be told from the other.
    current.destroy(new Error('overlapping reads'));
    this.destroy(new Error('overlapping reads'));
    return false;
  }
  const bytes = Buffer.from(buffer.buffer, buffer.byteOffset, count);
  // What was left over goes first; without a reader it has to wait as well.
  if (this.readableLength > 0 || this.listenerCount('readable') === 0) return this.push(Buffer.from(bytes));
  const reading = readings.get(this) ?? patch(this);
  reading.view = bytes;
  current = this;
  try {
    this.emit('readable');
    // The parser rests: the stream keeps it until then.
    return reading.view === undefined || this.destroyed || this.push(Buffer.from(reading.view));
  } finally {
    current = undefined;
    reading.view = undefined;
  }
}

/** Has the socket's `read` give what is in the shared buffer, and copies what the parser puts back. */
function patch(socket: Socket): Reading {
  const reading: Reading = { view: undefined };
  const read = socket.read.bind(socket);
  const unshift = socket.unshift.bind(socket);
  socket.read = (size?: number): Buffer | null => {
    const { view } = reading;
    if (view === undefined || size !== undefined) return read(size);
    reading.view = undefined;
    return view;
  };
  socket.unshift = (chunk: Uint8Array): void => unshift(Buffer.from(chunk));
  readings.set(socket, reading);
  return reading;
}
