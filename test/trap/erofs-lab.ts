import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BLOCK_BYTES, BlockMap } from '../../src/core/block-map.ts';
import { syscallAsync, syscallRawAsync } from '../../src/kernel/libc.ts';
import type { TrapDevice } from '../../src/trap/trap.ts';

const MS_RDONLY = 1;
const MNT_DETACH = 2;

/** An EROFS image whose data lies on one extra device, made once per test file. */
export interface LabImage {
  /** Metadata image. */
  readonly meta: string;
  /** The device's bytes. */
  readonly data: Buffer;
  /** Directory the image was made of. */
  readonly source: string;
}

/** Runs a program to its end; its exit code and output. Never blocks this process, which may have to serve it. */
export async function run(
  program: string,
  args: string[],
  timeoutMs = 60_000,
): Promise<{ code: number | null; out: Buffer; err: string }> {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], timeout: timeoutMs, killSignal: 'SIGKILL' });
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => err.push(chunk));
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, out: Buffer.concat(out), err: Buffer.concat(err).toString() };
}

/** A directory on a real file system (fanotify and EROFS refuse tmpfs and overlayfs); removed by `remove`. */
export function labDirectory(): { path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), 'shoal-trap-'));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

/** Makes an EROFS image of `files` (name to content) with all data on one extra device. */
export async function makeImage(directory: string, files: ReadonlyMap<string, Uint8Array>): Promise<LabImage> {
  const source = join(directory, 'source');
  mkdirSync(source, { recursive: true });
  for (const [name, content] of files) writeFileSync(join(source, name), content);
  const meta = join(directory, 'meta.erofs');
  const whole = join(directory, 'device.whole');
  writeFileSync(whole, '');
  const made = await run('mkfs.erofs', ['--quiet', '--chunksize', '4096', `--blobdev=${whole}`, '-T0', meta, source]);
  if (made.code !== 0) throw new Error(`mkfs.erofs: ${made.err}`);
  return { meta, data: readFileSync(whole), source };
}

/** A sparse device of `image` with nothing present, and a writer for it. */
export interface LabDevice extends TrapDevice {
  close(): void;
}

/** Opens (or makes) the sparse data file at `path`. */
export function openDevice(init: {
  id: number;
  name: string;
  path: string;
  size: number;
  present?: Uint8Array;
}): LabDevice {
  const fd = openSync(init.path, 'a+');
  closeSync(fd);
  const writable = openSync(init.path, 'r+');
  if (statSync(init.path).size !== init.size) ftruncateSync(writable, init.size);
  const presence = new BlockMap(init.size / BLOCK_BYTES, init.present);
  const { id, name, path, size } = init;
  return { id, name, path, size, fd: writable, presence, close: () => closeSync(writable) };
}

/** Mounts `meta` with one device file-backed; off this thread, for a mount of FUSE files asks this process. */
export async function mountImage(meta: string, devicePath: string, at: string): Promise<void> {
  mkdirSync(at, { recursive: true });
  await syscallAsync('mount', meta, at, 'erofs', MS_RDONLY, `device=${devicePath}`);
}

/** Unmounts `at`; `lazy` also while files are open. True when something was unmounted. */
export async function unmount(at: string, { lazy = false } = {}): Promise<boolean> {
  return (await syscallRawAsync('umount2', at, lazy ? MNT_DETACH : 0)) === 0;
}
