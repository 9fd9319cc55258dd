import { randomBytes } from 'node:crypto';
import { closeSync, fstatSync, openSync, readSync, writeFileSync } from 'node:fs';
import { ShoalError } from '../../errors.ts';

/** The secret that every node of a swarm has: 32 bytes. Never logged, never in an error. */
export interface SwarmKey {
  readonly bytes: Uint8Array;
}

const HEADER = '/key/swarm/psk/1.0.0/';
const KEY_BYTES = 32;
/** Largest key file: header, encoding, key and white space. */
const MAX_FILE_BYTES = 1024;

/** A new random key in the text form of libp2p's pnet: three lines. */
export function generateSwarmKey(): string {
  return `${HEADER}\n/base16/\n${randomBytes(KEY_BYTES).toString('hex')}\n`;
}

/** Parses the text form (`/base16/` or `/base64/`). Throws CONFIG_INVALID, which does not show the text. */
export function parseSwarmKey(text: string, name: string): SwarmKey {
  const [header, encoding, key, ...rest] = text.trim().split(/\r?\n/);
  const refuse = (reason: string): never => {
    throw new ShoalError(
      'CONFIG_INVALID',
      `${name} is no swarm key: ${reason}; make one with: shoal swarm key generate`,
    );
  };
  if (header !== HEADER) refuse(`its first line is not ${HEADER}`);
  if (rest.length > 0) refuse('more than three lines');
  if (encoding === '/base16/' && /^[0-9a-fA-F]{64}$/.test(key ?? '')) return { bytes: Buffer.from(key ?? '', 'hex') };
  if (encoding === '/base64/' && /^[A-Za-z0-9+/]{43}=?$/.test(key ?? '')) {
    return { bytes: Buffer.from(key ?? '', 'base64') };
  }
  return refuse('expected /base16/ and 64 hex digits');
}

/** The three lines again, as bytes: what pnet takes. */
export function encodeSwarmKey(key: SwarmKey): Uint8Array {
  return Buffer.from(`${HEADER}\n/base16/\n${Buffer.from(key.bytes).toString('hex')}\n`);
}

/** Reads a key file. Throws CONFIG_INVALID when it is missing, not ours, open to others, or no key. */
export function loadSwarmKey(path: string): SwarmKey {
  return parseSwarmKey(Buffer.from(readSecretFile(path, { most: MAX_FILE_BYTES, key: 'swarm key' })).toString(), path);
}

/** Writes a new key; throws CONFIG_INVALID when the file is there already or can't be written. */
export function writeSwarmKey(path: string): void {
  try {
    writeFileSync(path, generateSwarmKey(), { mode: 0o600, flag: 'wx' });
  } catch (cause) {
    const reason = (cause as NodeJS.ErrnoException).code === 'EEXIST' ? 'it exists already' : String(cause);
    throw new ShoalError('CONFIG_INVALID', `${path} can't be written: ${reason}`, { cause });
  }
}

/** A small file with a secret: regular, owned by this user (or root), readable by nobody else. Throws CONFIG_INVALID. */
export function readSecretFile(path: string, init: { most: number; key: string }): Uint8Array {
  const refuse = (reason: string, cause?: unknown): never => {
    throw new ShoalError('CONFIG_INVALID', `${init.key} ${path}: ${reason}`, cause === undefined ? {} : { cause });
  };
  let file: number;
  try {
    file = openSync(path, 'r');
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    return refuse(code === 'ENOENT' ? 'does not exist' : `can't be read: ${code}`, cause);
  }
  try {
    const stat = fstatSync(file);
    if (!stat.isFile()) refuse('is no regular file');
    if ((stat.mode & 0o077) !== 0) refuse(`is open to others; type: chmod 600 ${path}`);
    if (stat.uid !== process.geteuid?.() && stat.uid !== 0) refuse('belongs to another user');
    if (stat.size > init.most) refuse(`is larger than ${init.most} bytes`);
    const bytes = Buffer.alloc(init.most);
    return bytes.subarray(0, readSync(file, bytes));
  } finally {
    closeSync(file);
  }
}
