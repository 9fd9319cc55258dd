import { hash } from 'node:crypto';
import { constants, type PathLike } from 'node:fs';
import { type FileHandle, lstat, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { ShoalError } from '../errors.ts';

/**
 * Small state files: header (magic, version, kind, length) and payload under one SHA-256, so that a torn, cut, zeroed
 * or rotten file is recognised for what it is. Written whole, in place of the old one, by rename.
 */
const MAGIC = 0x46534853; // "SHSF"
const VERSION = 1;
/** magic u32, version u32, kind char[8], length u64, sha256 of these 24 bytes and the payload. */
const HASHED_HEADER_BYTES = 24;
const HEADER_BYTES = HASHED_HEADER_BYTES + 32;
/** What a sealed file has besides its payload. */
export const SEALED_HEADER_BYTES = HEADER_BYTES;
/** A table of 16 M chunks; nothing shoal writes comes near. */
const MAX_PAYLOAD_BYTES = 1024 * 1024 * 1024;

/** The payload under its header. `kind` is at most 8 ASCII characters and must be named again to read it. */
export function encodeSealed(kind: string, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + payload.byteLength);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, VERSION, true);
  bytes.set(Buffer.from(kind.slice(0, 8), 'latin1'), 8);
  view.setBigUint64(16, BigInt(payload.byteLength), true);
  bytes.set(payload, HEADER_BYTES);
  bytes.set(checksum(bytes), HASHED_HEADER_BYTES);
  return bytes;
}

/** The payload of what `encodeSealed` made; throws STATE_CORRUPT for anything else. */
export function decodeSealed(kind: string, bytes: Uint8Array): Uint8Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.byteLength < HEADER_BYTES || view.getUint32(0, true) !== MAGIC) throw corrupt(kind, 'is not one of ours');
  if (view.getUint32(4, true) !== VERSION) throw corrupt(kind, `has version ${view.getUint32(4, true)}`);
  if (Buffer.from(bytes.subarray(8, 16)).toString('latin1').replace(/\0+$/, '') !== kind.slice(0, 8)) {
    throw corrupt(kind, 'is of another kind');
  }
  if (view.getBigUint64(16, true) !== BigInt(bytes.byteLength - HEADER_BYTES))
    throw corrupt(kind, 'has another length');
  const stored = bytes.subarray(HASHED_HEADER_BYTES, HEADER_BYTES);
  if (Buffer.compare(stored, checksum(bytes)) !== 0) throw corrupt(kind, 'does not match its checksum');
  return bytes.subarray(HEADER_BYTES);
}

/** Reads a sealed file; undefined when there is none, STATE_CORRUPT when it is not what was written, else STORE_IO. */
export async function readSealed(path: string, kind: string): Promise<Uint8Array | undefined> {
  const file = await openExisting(path);
  if (file === undefined) return undefined;
  try {
    const { size } = await file.stat();
    if (size > MAX_PAYLOAD_BYTES) throw corrupt(kind, `has ${size} bytes`);
    return decodeSealed(kind, await file.readFile());
  } catch (error) {
    throw storeIo(error, `cannot read ${path}`);
  } finally {
    await file.close();
  }
}

/** Up to `length` bytes of a sealed file's payload, its checksum not looked at. Throws NOT_FOUND or STORE_IO. */
export async function readSealedRange(path: string, offset: number, length: number): Promise<Uint8Array> {
  const file = await openExisting(path);
  if (file === undefined) throw new ShoalError('NOT_FOUND', `${path} is not there`);
  try {
    const { bytesRead, buffer } = await file.read(new Uint8Array(length), 0, length, HEADER_BYTES + offset);
    return buffer.subarray(0, bytesRead);
  } catch (error) {
    throw storeIo(error, `cannot read ${path}`);
  } finally {
    await file.close();
  }
}

/** Writes a sealed file so that after a power cut either the old or the new one is there, whole. Throws STORE_IO. */
export async function writeSealed(path: string, kind: string, payload: Uint8Array): Promise<void> {
  const temporary = `${path}.new`;
  try {
    await rm(temporary, { force: true });
    await writeSynced(temporary, encodeSealed(kind, payload));
    await rename(temporary, path);
    await syncDir(dirname(path));
  } catch (error) {
    throw storeIo(error, `cannot write ${path}`);
  }
}

/** Creates a file of mode 0600 that must not exist yet, with these bytes on disk when it resolves. */
export async function writeSynced(path: string, bytes: Uint8Array): Promise<void> {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  const file = await open(path, flags, 0o600);
  try {
    await file.writeFile(bytes);
    await file.datasync();
  } finally {
    await file.close();
  }
}

/** Makes renames and new names in this directory durable. */
export async function syncDir(path: string): Promise<void> {
  const dir = await open(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    await dir.sync();
  } finally {
    await dir.close();
  }
}

/** Refuses, with CONFIG_INVALID, a directory that is a link, is not ours, or that others can enter (TOB-DF2-5). */
export async function assertPrivateDir(path: string): Promise<void> {
  const found = await lstat(path);
  if (!found.isDirectory()) throw new ShoalError('CONFIG_INVALID', `${path} is not a directory`);
  if (found.uid !== process.geteuid?.()) throw new ShoalError('CONFIG_INVALID', `${path} belongs to uid ${found.uid}`);
  if ((found.mode & 0o077) !== 0) {
    const mode = (found.mode & 0o777).toString(8);
    throw new ShoalError('CONFIG_INVALID', `${path} is open to others (mode ${mode}); chmod it to 0700`);
  }
}

/** A failed system call as STORE_IO with its errno; errors that are ours already pass unchanged. */
export function storeIo(error: unknown, what: string): ShoalError {
  if (error instanceof ShoalError) return error;
  const { errno, message } = error as NodeJS.ErrnoException;
  const context = typeof errno === 'number' ? { cause: error, errno: Math.abs(errno) } : { cause: error };
  return new ShoalError('STORE_IO', `${what}: ${message}`, context);
}

async function openExisting(path: PathLike): Promise<FileHandle | undefined> {
  try {
    return await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw storeIo(error, `cannot open ${String(path)}`);
  }
}

function checksum(bytes: Uint8Array): Uint8Array {
  const header = bytes.subarray(0, HASHED_HEADER_BYTES);
  const payload = hash('sha256', bytes.subarray(HEADER_BYTES), 'buffer');
  return hash('sha256', Buffer.concat([header, payload]), 'buffer');
}

function corrupt(kind: string, why: string): ShoalError {
  return new ShoalError('STATE_CORRUPT', `${kind} file ${why}`);
}
