import { hash, randomBytes, X509Certificate } from 'node:crypto';
import { mkdir, open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ShoalError } from '../../../errors.ts';
import { makeSelfSigned } from './certificate.ts';

/** What a node shows of itself on the data plane. */
export interface TlsIdentity {
  /** Private key and certificate, PEM. */
  readonly key: string;
  readonly cert: string;
  /** SHA-256 of the certificate (DER), lower-case hex: what neighbours pin. */
  readonly fingerprint: string;
}

const FILE = 'tls.pem';

function makePem(): string {
  const { key, cert } = makeSelfSigned();
  return `${key}${cert}`;
}

/**
 * The node's TLS key and self-signed certificate (ECDSA P-256), in one file below `keysDir` (0700, file 0600), made
 * when missing. Throws STATE_CORRUPT for a file that is not that, STORE_IO when it cannot be read or written.
 */
export async function loadTlsIdentity({ keysDir }: { keysDir: string }): Promise<TlsIdentity> {
  const path = join(keysDir, FILE);
  try {
    await mkdir(keysDir, { recursive: true, mode: 0o700 });
    const pem = (await readIfThere(path)) ?? (await writeNew(keysDir, path, makePem()));
    return identityOf(pem, path);
  } catch (error) {
    if (error instanceof ShoalError) throw error;
    throw new ShoalError('STORE_IO', `cannot read or make the TLS key ${path}`, { cause: error });
  }
}

/** A fresh identity that is not kept. */
export function makeTlsIdentity(): TlsIdentity {
  return identityOf(makePem(), 'a new TLS key');
}

/** SHA-256 of a certificate in DER, lower-case hex. */
export function fingerprintOf(der: Uint8Array): string {
  return hash('sha256', der, 'hex');
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    const file = await open(path, 'r');
    try {
      const { mode, uid } = await file.stat();
      if ((mode & 0o077) !== 0 || uid !== process.getuid?.()) {
        throw new ShoalError('CONFIG_INVALID', `${path} must belong to us and have mode 0600`);
      }
      return await file.readFile('utf8');
    } finally {
      await file.close();
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** All of it or nothing: a half-written key would be taken for a corrupt one at the next start. */
async function writeNew(dir: string, path: string, pem: string): Promise<string> {
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  try {
    const file = await open(temporary, 'wx', 0o600);
    try {
      await file.writeFile(pem);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
    const folder = await open(dir, 'r');
    await folder.sync().finally(() => folder.close());
    return pem;
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

function identityOf(pem: string, path: string): TlsIdentity {
  const key = /-----BEGIN PRIVATE KEY-----[^-]+-----END PRIVATE KEY-----\n?/.exec(pem)?.[0];
  const cert = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n?/.exec(pem)?.[0];
  try {
    if (key === undefined || cert === undefined) throw new Error('key or certificate is missing');
    return { key, cert, fingerprint: fingerprintOf(new X509Certificate(cert).raw) };
  } catch (cause) {
    throw new ShoalError(
      'STATE_CORRUPT',
      `${path} does not hold a key and its certificate; remove it to get new ones`,
      {
        cause,
      },
    );
  }
}
