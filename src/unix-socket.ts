import { chmodSync, lstatSync, mkdirSync, unlinkSync } from 'node:fs';
import { createConnection, type Server } from 'node:net';
import { dirname } from 'node:path';
import { ShoalError } from './errors.ts';

/** sun_path of a Linux unix socket, bytes without its NUL. */
const PATH_BYTES_MAX = 107;
/** How long the check whether somebody serves a socket may take. */
const PROBE_MS = 1_000;

/**
 * Lets `server` listen on a unix socket that only its owner may open (0600); its folder is made, 0700, when it is
 * missing. A socket nobody answers on is replaced. Throws FAILED_PRECONDITION when another process serves it, and
 * CONFIG_INVALID when the path is too long, holds something else than a socket, or can't be listened on.
 */
export async function listenPrivately(server: Server, path: string): Promise<void> {
  const bytes = Buffer.byteLength(path);
  if (bytes > PATH_BYTES_MAX) throw invalid(path, `the path has ${bytes} bytes, Linux allows ${PATH_BYTES_MAX}`);
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    await removeLeft(path);
    await listen(server, path);
  } catch (cause) {
    if (cause instanceof ShoalError) throw cause;
    throw invalid(path, cause instanceof Error ? cause.message : String(cause), cause);
  }
}

/** Makes the path free of a socket that a daemon left behind when it died; touches nothing else. */
async function removeLeft(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) throw invalid(path, 'something else is there');
  if (await isServed(path)) {
    throw new ShoalError('FAILED_PRECONDITION', `socket ${path}: another process serves it; stop it or name another`);
  }
  unlinkSync(path);
}

function isServed(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const probe = createConnection(path);
    const finish = (settle: () => void): void => {
      clearTimeout(timer);
      probe.destroy();
      settle();
    };
    // Neither accepted nor refused: its backlog is full, so somebody holds it.
    const timer = setTimeout(() => finish(() => resolve(true)), PROBE_MS);
    probe.once('connect', () => finish(() => resolve(true)));
    probe.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ECONNREFUSED' || error.code === 'ENOENT') finish(() => resolve(false));
      else if (error.code === 'EAGAIN') finish(() => resolve(true));
      else finish(() => reject(error));
    });
  });
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    // bind(2) happens inside this call: the socket is never open to others, not even for a moment.
    const before = process.umask(0o177);
    try {
      server.listen(path, () => {
        server.off('error', reject);
        chmodSync(path, 0o600);
        resolve();
      });
    } finally {
      process.umask(before);
    }
  });
}

function invalid(path: string, why: string, cause?: unknown): ShoalError {
  return new ShoalError('CONFIG_INVALID', `socket ${path}: ${why}`, { cause });
}
