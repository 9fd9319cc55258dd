import { readFile } from 'node:fs/promises';
import { ShoalError } from '../../errors.ts';
import { basicCredential, type Credential } from './credentials.ts';
import { Secret } from './secret.ts';

/** A JSON object whose content is not known yet. */
export type Json = Readonly<Record<string, unknown>>;

const MAX_CONFIG_BYTES = 1024 * 1024;

/** Reads a JSON object that holds credentials; undefined without the file. Throws CONFIG_INVALID that shows none of it. */
export async function readSecretJson(path: string, signal: AbortSignal): Promise<Json | undefined> {
  let text: string;
  try {
    text = await readFile(path, { encoding: 'utf8', signal });
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    if (signal.aborted) throw signal.reason;
    throw new ShoalError('CONFIG_INVALID', `cannot read ${path}`, { cause });
  }
  if (text.length > MAX_CONFIG_BYTES) throw new ShoalError('CONFIG_INVALID', `${path} is larger than 1 MiB`);
  const config = parseJson(text);
  if (config === undefined) throw new ShoalError('CONFIG_INVALID', `${path} is not a JSON object`);
  return config;
}

/** A JSON object, or undefined. JSON.parse quotes the text in its message, so that error goes nowhere. */
export function parseJson(text: string): Json | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

export function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The credential of one entry of `auths`; undefined for an empty one. Throws CONFIG_INVALID naming the key. */
export function authEntry(entry: unknown, key: string): Credential | undefined {
  if (!isObject(entry)) return undefined;
  const { identitytoken, auth, username, password } = entry;
  if (typeof identitytoken === 'string' && identitytoken !== '') {
    return { kind: 'identity-token', token: new Secret(identitytoken) };
  }
  if (typeof auth === 'string' && auth !== '') return decodeAuth(auth, key);
  if (typeof username === 'string' && typeof password === 'string' && username !== '') {
    return basicCredential(username, password);
  }
  return undefined;
}

/** `auth` of docker: base64 of `user:password`. Throws CONFIG_INVALID naming the key. */
export function decodeAuth(auth: string, key: string): Credential {
  const text = Buffer.from(auth, 'base64').toString('utf8');
  const colon = text.indexOf(':');
  if (colon < 1) throw new ShoalError('CONFIG_INVALID', `"auth" of ${key} is not base64 of user:password`);
  // docker pads with NUL bytes, and strips them when it reads.
  return basicCredential(text.slice(0, colon), text.slice(colon + 1).replace(/\0+$/, ''));
}
