import { writeSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { encodeChunkTable } from '../../core/chunk-table-codec.ts';
import { parseDigest } from '../../core/digest.ts';
import { ShoalError } from '../../errors.ts';
import { impliesDirs } from '../layer-tree.ts';
import { encodeTree } from '../tree-codec.ts';
import { LayerPass } from './layer-pass.ts';
import type { PassCommand, PassNotice } from './pass-protocol.ts';
import { encodeWindows } from './windows.ts';

/** The thread of a pass: everything that costs time per byte, one layer after the other. */

let pass: LayerPass | undefined;

parentPort?.on('message', (command: PassCommand) => {
  try {
    obey(command);
  } catch (error) {
    drop();
    send(noticeOf(error));
  }
});

function obey(command: PassCommand): void {
  if (command.kind === 'begin') {
    drop();
    const { fd, digest, maxEntries } = command;
    pass = new LayerPass(
      { output: (bytes, offset) => writeAll(fd, bytes, offset) },
      { digest: parseDigest(digest), ...(maxEntries === undefined ? {} : { maxEntries }) },
    );
  } else if (command.kind === 'bytes') {
    try {
      pass?.write(command.bytes);
    } finally {
      send({ kind: 'taken', bytes: command.bytes }, [command.bytes.buffer as ArrayBuffer]);
    }
  } else if (command.kind === 'end') finish();
  else drop();
}

function finish(): void {
  if (pass === undefined) return;
  const { packing, tree, chunks, windows, diffId } = pass.finish();
  drop();
  send({
    kind: 'result',
    packing,
    tree: encodeTree(tree),
    chunks: encodeChunkTable(chunks),
    windows: windows.length === 0 ? undefined : encodeWindows(windows),
    diffId,
    impliesDirs: impliesDirs(tree),
  });
}

function drop(): void {
  pass?.close();
  pass = undefined;
}

function writeAll(fd: number, bytes: Uint8Array, offset: number): void {
  let done = 0;
  while (done < bytes.byteLength) done += writeSync(fd, bytes, done, bytes.byteLength - done, offset + done);
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
