import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { addToError, type Daemon, inNetwork, startDaemon, waitFor } from './process.ts';

/** `shoal serve` with its own root and sockets. */
export interface LabShoal {
  readonly dir: string;
  readonly root: string;
  readonly socket: string;
  readonly control: string;
  readonly daemon: Daemon;
  /** `GET path` on the control socket, parsed. */
  get<T>(path: string): Promise<T>;
  /** `POST path` with a JSON body. */
  post<T>(path: string, body: unknown): Promise<T>;
  stop(signal?: NodeJS.Signals): Promise<number | null>;
}

/** The checkout's main program, run by the Node that runs this. */
export const SHOAL_MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));

/** Starts the daemon in `dir` (kept between starts) and waits until its sockets answer. */
export async function startShoal(init: {
  dir: string;
  config?: string;
  netns?: string;
  env?: Record<string, string>;
  readyMs?: number;
  /** What starts shoal, instead of the checkout's sources. */
  program?: readonly string[];
}): Promise<LabShoal> {
  const root = join(init.dir, 'root');
  const socket = join(init.dir, 's.sock');
  const control = join(init.dir, 'ctl.sock');
  await mkdir(init.dir, { recursive: true });
  const config = join(init.dir, 'config.toml');
  await writeFile(config, init.config ?? '');
  const flags = ['serve', '--config', config, '--root', root, '--socket', socket, '--control', control];
  const inner = [...(init.program ?? [process.execPath, SHOAL_MAIN]), ...flags];
  const [command, ...args] = inNetwork(init.netns, inner);
  const daemon = startDaemon(command, args, { logPath: join(init.dir, 'shoal.log'), env: init.env ?? {} });
  const answers = waitFor(
    'shoal',
    async () => daemon.child.exitCode !== null || (await askJson(control, 'GET', '/v1/health')) !== undefined,
    init.readyMs ?? 60_000,
  );
  await answers.catch(async (error) => {
    await daemon.stop('SIGKILL');
    addToError(error, `\n${(await readFile(daemon.logPath, 'utf8')).slice(-2_000)}`);
    throw error;
  });
  if (daemon.child.exitCode !== null) {
    throw new Error(`shoal ended with ${daemon.child.exitCode}: ${await readFile(daemon.logPath, 'utf8')}`);
  }
  return {
    dir: init.dir,
    root,
    socket,
    control,
    daemon,
    get: <T>(path: string) => askJson(control, 'GET', path) as Promise<T>,
    post: <T>(path: string, body: unknown) => askJson(control, 'POST', path, body) as Promise<T>,
    stop: (signal) => daemon.stop(signal, 30_000),
  };
}

function askJson(socketPath: string, method: string, path: string, body?: unknown): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { 'content-type': 'application/json' };
    const call = request({ socketPath, path, method, headers, timeout: 60_000 }, (response) => {
      const parts: Buffer[] = [];
      response.on('data', (bytes: Buffer) => parts.push(bytes));
      response.on('end', () => {
        const text = Buffer.concat(parts).toString();
        if ((response.statusCode ?? 500) < 300) resolve(text === '' ? undefined : JSON.parse(text));
        else reject(new Error(`${path} answered ${response.statusCode}: ${text}`));
      });
    });
    call.on('error', reject);
    call.end(body === undefined ? undefined : JSON.stringify(body));
  });
}
