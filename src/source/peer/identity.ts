import { existsSync, mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { generateKeyPair, privateKeyFromProtobuf, privateKeyToProtobuf } from '@libp2p/crypto/keys';
import type { PrivateKey } from '@libp2p/interface';
import { ShoalError, withContext } from '../../errors.ts';
import { writeAtomically } from './state-file.ts';
import { readSecretFile } from './swarm-key.ts';

/** Largest identity file: an Ed25519 key takes 68 bytes. */
const MAX_FILE_BYTES = 1024;

/**
 * This node's Ed25519 key (libp2p's protobuf form), made when the file is missing. The file is 0600 in a folder of mode
 * 0700. Throws CONFIG_INVALID when others can read it, STATE_CORRUPT when it is no key.
 */
export async function loadIdentity(path: string): Promise<PrivateKey> {
  if (!existsSync(path)) {
    const key = await generateKeyPair('Ed25519');
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    await writeAtomically(path, privateKeyToProtobuf(key));
    return key;
  }
  const bytes = readSecretFile(path, { most: MAX_FILE_BYTES, key: 'peer identity' });
  try {
    const key = privateKeyFromProtobuf(bytes);
    if (key.type !== 'Ed25519') throw new ShoalError('STATE_CORRUPT', `${path} holds a ${key.type} key, not Ed25519`);
    return key;
  } catch (cause) {
    if (cause instanceof ShoalError) throw cause;
    throw withContext(
      new Error(`${path} is no libp2p key; remove it to get a new identity`, { cause }),
      {},
      'STATE_CORRUPT',
    );
  }
}
