import { mkdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { ownsSecrets } from '../canary/owner.ts';
import { type Daemon, inNetwork, run, startDaemon, waitFor } from './process.ts';

/** A real registry (`docker-registry`) on loopback. */
export interface LabRegistry {
  /** `127.0.0.1:port` */
  readonly host: string;
  readonly port: number;
  readonly daemon: Daemon;
  /** Stops it; the storage stays. */
  stop(): Promise<void>;
}

/** A TCP port of loopback that was free a moment ago. */
export async function freePort(address = '127.0.0.1'): Promise<number> {
  return await new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, address, () => {
      const bound = server.address();
      server.close(() =>
        typeof bound === 'object' && bound !== null ? resolve(bound.port) : reject(new Error('no port')),
      );
    });
  });
}

/** Starts docker-registry over `storage`, which may already hold images. */
export async function startRegistry(init: {
  workDir: string;
  storage: string;
  address?: string;
  port?: number;
  /** Runs the registry inside this network namespace. */
  netns?: string;
  /** Its address is reached from within that namespace only. */
  unreachable?: boolean;
  /** A file of lines `user:bcrypt`: asks for a password. Read again when it changes. */
  htpasswd?: string;
}): Promise<LabRegistry> {
  const address = init.address ?? '127.0.0.1';
  const port = init.port ?? (await freePort(address));
  if (init.htpasswd !== undefined) ownsSecrets(`${address}:${port}`);
  await mkdir(init.workDir, { recursive: true });
  await mkdir(init.storage, { recursive: true });
  const configPath = join(init.workDir, `registry-${port}.yml`);
  await writeFile(
    configPath,
    [
      'version: 0.1',
      'log: { level: warn, accesslog: { disabled: true } }',
      `storage: { filesystem: { rootdirectory: ${JSON.stringify(init.storage)} }, delete: { enabled: true } }`,
      `http: { addr: "${address}:${port}" }`,
      ...(init.htpasswd === undefined
        ? []
        : [`auth: { htpasswd: { realm: lab, path: ${JSON.stringify(init.htpasswd)} } }`]),
      '',
    ].join('\n'),
  );
  const logPath = join(init.workDir, `registry-${port}.log`);
  const [command, ...args] = inNetwork(init.netns, ['docker-registry', 'serve', configPath]);
  const daemon = startDaemon(command, args, { logPath, env: { OTEL_TRACES_EXPORTER: 'none' } });
  const url = `http://${address}:${port}/v2/`;
  await waitFor('docker-registry', async () => {
    if (init.unreachable === true) return (await run(...asked(init.netns, url))).status === 0;
    const { status } = await fetch(url);
    return status === 200 || (status === 401 && init.htpasswd !== undefined);
  });
  return { host: `${address}:${port}`, port, daemon, stop: async () => void (await daemon.stop()) };
}

/** The command that fails unless `url` answers in this namespace. */
function asked(netns: string | undefined, url: string): [string, string[]] {
  const script = `fetch('${url}').then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))`;
  const [command, ...args] = inNetwork(netns, [process.execPath, '-e', script]);
  return [command, args];
}
