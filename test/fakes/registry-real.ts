import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { assertCanaries, ownsSecrets } from '../canary/owner.ts';
import type { TestCertificate, TokenServer } from './token-server.ts';

const run = promisify(execFile);

/** The real `docker-registry` (distribution 2.8) on a free loopback port, with its storage in a temporary directory. */
export class RealRegistry {
  readonly #child: ChildProcess;
  readonly #directory: string;
  /** `127.0.0.1:port`: the registry part of a reference. */
  readonly host: string;

  private constructor(child: ChildProcess, directory: string, host: string) {
    this.#child = child;
    this.#directory = directory;
    this.host = host;
  }

  /** True when this machine has `docker-registry` and `skopeo`. */
  static async available(): Promise<boolean> {
    try {
      await run('docker-registry', ['--version'], { timeout: 5000 });
      await run('skopeo', ['--version'], { timeout: 5000 });
      return true;
    } catch {
      return false;
    }
  }

  /** Starts it; `htpasswd` (lines `user:bcrypt`) turns Basic authentication on, `token` that of a token server. */
  static async start(
    init: { htpasswd?: string; tls?: TestCertificate; token?: TokenServer; folder?: string } = {},
  ): Promise<RealRegistry> {
    const directory = await mkdtemp(join(init.folder ?? tmpdir(), 'shoal-registry-'));
    const host = `127.0.0.1:${await freePort()}`;
    if (init.htpasswd !== undefined || init.token !== undefined) ownsSecrets(host);
    const config: Record<string, unknown> = {
      version: '0.1',
      log: { level: 'error', accesslog: { disabled: true } },
      storage: { filesystem: { rootdirectory: join(directory, 'data') } },
      http: { addr: host, secret: 'not-a-secret' },
    };
    if (init.htpasswd !== undefined) {
      await writeFile(join(directory, 'htpasswd'), init.htpasswd);
      config.auth = { htpasswd: { realm: 'shoal test', path: join(directory, 'htpasswd') } };
    }
    if (init.token !== undefined) config.auth = { token: init.token.registryConfig };
    if (init.tls !== undefined) {
      config.http = {
        addr: host,
        secret: 'not-a-secret',
        tls: { certificate: init.tls.certPath, key: init.tls.keyPath },
      };
    }
    // JSON is YAML.
    await writeFile(join(directory, 'config.yml'), JSON.stringify(config));
    const child = spawn('docker-registry', ['serve', join(directory, 'config.yml')], { stdio: 'ignore' });
    const registry = new RealRegistry(child, directory, host);
    try {
      await waitFor(host);
    } catch (error) {
      await registry.close();
      throw error;
    }
    return registry;
  }

  /** Copies the image of an OCI layout directory into it; digests are kept. */
  async push(layout: string, repository: string, tag: string, credentials?: string): Promise<void> {
    assertCanaries(credentials?.split(':')[1]);
    const login = credentials === undefined ? [] : ['--dest-creds', credentials];
    const target = `docker://${this.host}/${repository}:${tag}`;
    const options = ['copy', '--quiet', '--preserve-digests', '--dest-tls-verify=false', ...login];
    await run('skopeo', [...options, `oci:${layout}`, target], { timeout: 60_000 });
  }

  async close(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const gone = new Promise((resolve) => this.#child.once('exit', resolve));
      this.#child.kill('SIGKILL');
      await gone;
    }
    await rm(this.#directory, { recursive: true, force: true });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

/** Until it takes connections: a Go server then answers. */
async function waitFor(host: string): Promise<void> {
  const [hostname, port] = host.split(':');
  for (let tried = 0; tried < 400; tried += 1) {
    const isUp = await new Promise<boolean>((resolve) => {
      const socket = connect({ host: hostname as string, port: Number(port) });
      socket.on('connect', () => resolve(true)).on('error', () => resolve(false));
      socket.on('connect', () => socket.destroy());
    });
    if (isUp) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${host} did not come up within 20 s`);
}
