import { setImmediate } from 'node:timers/promises';
import { parentPort } from 'node:worker_threads';
import { parseDigest } from '../../core/digest.ts';
import { ShoalError } from '../../errors.ts';
import { impliesDirs } from '../layer-tree.ts';
import { encodeTree } from '../tree-codec.ts';
import { createDeviceFile, type DeviceFile } from './device-file.ts';
import { LayerPass, type PassResult } from './layer-pass.ts';
import type { PassCommand, PassNotice } from './pass-protocol.ts';
import { encodeWindows } from './windows.ts';

/** The thread of a pass: everything that costs time per byte, one layer after the other. */

interface Running {
  readonly pass: LayerPass;
  readonly file: DeviceFile;
}

/** Decoded at a time; then writes of the device that are done are seen to. */
const STEP_BYTES = 1024 * 1024;

let running: Running | undefined;
let last = Promise.resolve();

parentPort?.on('message', (command: PassCommand) => {
  last = last
    .then(() => obey(command))
    .catch((error: unknown) => {
      drop();
      send(noticeOf(error));
    });
});

async function obey(command: PassCommand): Promise<void> {
  if (command.kind === 'begin') {
    drop();
    const { fd, digest, maxEntries } = command;
    const file = createDeviceFile({ fd });
    const limits = maxEntries === undefined ? {} : { maxEntries };
    running = { file, pass: new LayerPass({ output: file.output }, { digest: parseDigest(digest), ...limits }) };
  } else if (command.kind === 'bytes') {
    try {
      await decode(command.bytes);
    } finally {
      send({ kind: 'taken', bytes: command.bytes }, [command.bytes.buffer as ArrayBuffer]);
    }
  } else if (command.kind === 'end') await finish();
  else drop();
}

async function decode(bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.byteLength; at += STEP_BYTES) {
    running?.pass.write(bytes.subarray(at, at + STEP_BYTES));
    await setImmediate();
  }
}

async function finish(): Promise<void> {
  if (running === undefined) return;
  const { pass, file } = running;
  const result = pass.finish();
  await file.written();
  drop();
  report(result);
}

function report({ packing, tree, chunks, windows, diffId }: PassResult): void {
  const { columns } = chunks;
  const packed = windows.length === 0 ? undefined : owned(encodeWindows(windows));
  const encoded = owned(encodeTree(tree));
  const { blockStart, length, extentOf, inner, digests } = columns;
  const notice: PassNotice = {
    kind: 'result',
    packing,
    tree: encoded,
    chunks: columns,
    windows: packed,
    diffId,
    impliesDirs: impliesDirs(tree),
  };
  const parts = [encoded, blockStart, length, extentOf, inner, digests, ...(packed === undefined ? [] : [packed])];
  send(
    notice,
    parts.map(({ buffer }) => buffer as ArrayBuffer),
  );
}

/** The bytes as memory that can change hands: nothing else in it. */
function owned(bytes: Uint8Array): Uint8Array {
  return bytes.byteLength === bytes.buffer.byteLength ? bytes : new Uint8Array(bytes);
}

function drop(): void {
  running?.pass.close();
  running?.file.close();
  running = undefined;
}

function noticeOf(error: unknown): PassNotice {
  if (error instanceof ShoalError) {
    return { kind: 'error', code: error.code, message: error.message, errno: error.context.errno };
  }
  const { errno, message, syscall } = error as NodeJS.ErrnoException;
  const code = syscall === undefined ? 'INVALID_LAYER' : 'STORE_IO';
  return { kind: 'error', code, message, errno: errno === undefined ? undefined : Math.abs(errno) };
}

function send(notice: PassNotice, transfer: ArrayBuffer[] = []): void {
  parentPort?.postMessage(notice, transfer);
}
