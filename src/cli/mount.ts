import { spawn } from 'node:child_process';
import { mkdirSync, openSync, statSync } from 'node:fs';
import { extname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Config } from '../config.ts';
import { createControlClient } from '../control/client.ts';
import { hasCode, ShoalError } from '../errors.ts';
import { parseReference } from '../image/reference.ts';
import type { Command, Invocation } from './command.ts';
import { EXIT } from './exit-code.ts';

/** A daemon that is started for this mount must answer by then. */
const START_TIMEOUT_MS = 15_000;
/** A little more than the daemon itself allows. */
const MOUNT_TIMEOUT_MS = 125_000;

/** `shoal mount`: an image at a directory, without containerd. */
export const mountCommand: Command = {
  name: 'mount',
  args: 'REF DIR',
  argCount: { min: 2, max: 2 },
  summary: 'mount an image read-only at a directory, reading it on demand',
  description:
    'Mounts the image lazily: the directory shows the whole tree at once, files are fetched and verified when they are\nread. Uses the daemon that runs, or starts one in the background that ends with its last mount. End it with\n`shoal umount DIR`. Plain layers that there is no index\nfor are read whole first.',
  options: {},
  async run(invocation) {
    const [text, directoryText] = invocation.args as [string, string];
    parseReference(text);
    const directory = existingDirectory(directoryText);
    const config = invocation.config();
    await ensureDaemon(config, invocation);
    const client = createControlClient({ socket: config.control.socket });
    const { io } = invocation;
    if (io.isTty) io.err(`mounting ${text} …\r`);
    const mounted = (await client.call(
      'POST',
      '/v1/mounts',
      { reference: text, directory },
      { signal: invocation.signal, timeoutMs: MOUNT_TIMEOUT_MS },
    )) as { reference: string; manifestDigest: string };
    io.out(`mounted ${mounted.reference}@${mounted.manifestDigest.slice(0, 19)} at ${directory}\n`);
    return EXIT.ok;
  },
};

function existingDirectory(text: string): string {
  const directory = resolve(text);
  let isDirectory = false;
  try {
    isDirectory = statSync(directory).isDirectory();
  } catch {
    throw new ShoalError('NOT_FOUND', `${directory} does not exist; make it first: mkdir -p ${directory}`);
  }
  if (!isDirectory) throw new ShoalError('INVALID_ARGUMENT', `${directory} is not a directory`);
  return directory;
}

async function answers(config: Config): Promise<boolean> {
  try {
    await createControlClient({ socket: config.control.socket }).health({ timeoutMs: 2_000 });
    return true;
  } catch (error) {
    if (hasCode(error, 'UNAVAILABLE')) return false;
    throw error;
  }
}

/** Starts `shoal serve` in the background with the same configuration when no daemon answers. */
async function ensureDaemon(config: Config, { options, io, signal }: Invocation): Promise<void> {
  if (await answers(config)) return;
  mkdirSync(config.root, { recursive: true, mode: 0o700 });
  const logPath = join(config.root, 'serve.log');
  const log = openSync(logPath, 'a', 0o600);
  // main.ts in a checkout, main.js in a package
  const main = fileURLToPath(new URL(`../main${extname(import.meta.filename)}`, import.meta.url));
  const flags = ['config', 'root', 'socket', 'control', 'trap', 'log-level'].flatMap((name) =>
    typeof options[name] === 'string' ? [`--${name}`, options[name]] : [],
  );
  const child = spawn(process.execPath, [...process.execArgv, main, 'serve', '--until-unmounted', ...flags], {
    detached: true,
    stdio: ['ignore', log, log],
  });
  child.unref();
  io.err(`no daemon answers at ${config.control.socket}: starting one (log: ${logPath})\n`);
  const deadline = performance.now() + START_TIMEOUT_MS;
  while (performance.now() < deadline && child.exitCode === null) {
    signal.throwIfAborted();
    if (await answers(config)) return;
    await sleep(50);
  }
  throw new ShoalError('UNAVAILABLE', `the daemon did not start; ${logPath} says why`);
}
