import { once } from 'node:events';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { type handleServerStreamingCall, type handleUnaryCall, type ServerWritableStream, status } from '@grpc/grpc-js';
import { ShoalError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { infoMessage, infoSizeBound, type Message, statusOf } from './grpc-messages.ts';
import type { SnapshotInfo } from './snapshot-info.ts';

/** Reply messages of a List are filled up to this many bytes: well under the 4 MiB limit of gRPC clients. */
const LIST_MESSAGE_BYTES = 256 * 1024;
/** Snapshots looked at before a List lets others have the event loop, matching ones or not. */
const LIST_MESSAGE_INFOS = 500;

/** Ends calls that take longer than they should, or that nobody waits for any more. */
export interface CallInit {
  readonly deadlineMs: number;
  readonly log: Logger;
}

/** A handler that answers with one message; whatever it throws becomes a status. */
export function unary(
  init: CallInit,
  run: (request: Message, options: { signal: AbortSignal }) => Message | Promise<Message>,
): handleUnaryCall<Message, Message> {
  return (call, callback) => {
    const { signal, done } = callSignal(call, init.deadlineMs);
    // A promise of its own, so that a handler that throws at once ends up in the same place.
    Promise.resolve()
      .then(() => run(call.request, { signal }))
      .then(
        (reply) => callback(null, reply),
        (error) => callback(failure(error, signal, init.log)),
      )
      .finally(done);
  };
}

/** A handler that streams snapshots and waits while the client does not read. */
export function streaming(
  init: CallInit,
  run: (request: Message) => Iterable<SnapshotInfo>,
): handleServerStreamingCall<Message, Message> {
  return (call) => {
    const { signal, done } = callSignal(call, init.deadlineMs);
    Promise.resolve()
      .then(() => writeInfos(call, run(call.request), signal))
      .then(
        () => call.end(),
        (error) => call.emit('error', failure(error, signal, init.log)),
      )
      .finally(done);
  };
}

async function writeInfos(
  call: ServerWritableStream<Message, Message>,
  infos: Iterable<SnapshotInfo>,
  signal: AbortSignal,
): Promise<void> {
  let batch: Message[] = [];
  let bytes = 0;
  const flush = async (): Promise<void> => {
    if (batch.length === 0) return;
    const more = call.write({ info: batch });
    batch = [];
    bytes = 0;
    if (!more) await once(call, 'drain', { signal });
    else await nextTurn(undefined, { signal });
  };
  for (const info of infos) {
    const size = infoSizeBound(info);
    if (bytes + size > LIST_MESSAGE_BYTES || batch.length === LIST_MESSAGE_INFOS) await flush();
    batch.push(infoMessage(info));
    bytes += size;
  }
  await flush();
}

interface Cancellable {
  on(event: 'cancelled', listener: () => void): unknown;
}

function callSignal(call: Cancellable, deadlineMs: number): { signal: AbortSignal; done: () => void } {
  const abort = new AbortController();
  const timer = setTimeout(() => {
    abort.abort(new ShoalError('DEADLINE_EXCEEDED', `the call took longer than ${deadlineMs} ms`));
  }, deadlineMs);
  call.on('cancelled', () => abort.abort(new DOMException('the client gave up the call', 'AbortError')));
  return { signal: abort.signal, done: () => clearTimeout(timer) };
}

function failure(error: unknown, signal: AbortSignal, log: Logger): { code: status; details: string } {
  // What failed because it was given up failed for that reason, whatever it says itself.
  const cause = signal.aborted && !(error instanceof ShoalError) ? signal.reason : error;
  if (cause instanceof DOMException) return { code: status.CANCELLED, details: cause.message };
  if (!(cause instanceof ShoalError)) {
    log.error('a snapshot call failed unexpectedly', { error: (cause as Error).stack ?? String(cause) });
  }
  return statusOf(cause);
}
