import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ShoalError } from '../../errors.ts';
import { hostFolders } from './hosts-directory.ts';
import { parseHostsFile } from './hosts-file.ts';

/** Ports of a Dragonfly client as it comes (reference: anchors-mission 2.1). */
export const DRAGONFLY_PORTS = { proxy: 4001, health: 4003 } as const;

/** A Dragonfly client that answers. */
export interface FoundDragonfly {
  /** Where registries are asked: `http://127.0.0.1:4001`. */
  readonly url: string;
  readonly pingUrl: string;
}

/** What was done, or would be, for one registry. */
export interface SetupStep {
  readonly registry: string;
  readonly file: string;
  /** `kept`: the file has an entry for this client already, or one that must not be touched. */
  readonly action: 'written' | 'extended' | 'kept';
  readonly why?: string;
  /** The text that was, or would be, added at the front of the hosts. */
  readonly text?: string;
}

/** Longest wait for an answer on a local port, ms. */
const DETECT_TIMEOUT_MS = 2_000;

/**
 * Looks for a Dragonfly client on this node: its health port must answer 2xx and its proxy port must take connections.
 * Throws NOT_FOUND that names both.
 */
export async function detectDragonfly(init: { url: string; pingUrl: string }): Promise<FoundDragonfly> {
  const { url, pingUrl } = init;
  const ask = async (target: string): Promise<number> => {
    const answer = await fetch(target, { redirect: 'manual', signal: AbortSignal.timeout(DETECT_TIMEOUT_MS) });
    await answer.body?.cancel();
    return answer.status;
  };
  try {
    const status = await ask(pingUrl);
    if (status < 200 || status > 299) throw new Error(`${pingUrl} answered ${status}`);
    // Whatever it answers: something speaks HTTP there.
    await ask(`${url}/`);
    return { url, pingUrl };
  } catch (cause) {
    const inner = (cause as Error).cause as NodeJS.ErrnoException | undefined;
    const why = inner?.code ?? (cause as Error).message;
    throw new ShoalError(
      'NOT_FOUND',
      `no Dragonfly client answers at ${pingUrl} and ${url} (${why}); name others with --url and --ping-url`,
      { cause },
    );
  }
}

/** The entry of one registry; `upstream` is its URL with scheme, undefined for `_default`, which serves them all. */
export function dragonflyEntry(found: FoundDragonfly, upstream: string | undefined): string {
  const host = JSON.stringify(found.url);
  const header =
    upstream === undefined ? 'X-Dragonfly-Use-P2P = "true"' : `X-Dragonfly-Registry = ${JSON.stringify(upstream)}`;
  return [
    `[host.${host}]`,
    'capabilities = ["pull", "resolve"]',
    'dial_timeout = "1s"',
    `ping_url = ${JSON.stringify(found.pingUrl)}`,
    '',
    `[host.${host}.header]`,
    header,
    '',
  ].join('\n');
}

/**
 * Adds the client to the `hosts.toml` of a registry (`_default`: of all that have none). What is there stays: the entry
 * goes before the first host of the file, whose other lines are not changed. Files that cannot be read, or that name this
 * client already, are left alone.
 */
export async function addDragonfly(
  found: FoundDragonfly,
  init: { root: string; registry: string; upstream: string | undefined; dryRun: boolean },
): Promise<SetupStep> {
  const { root, registry, upstream, dryRun } = init;
  const { file, text: former } = await existing(root, registry);
  const step = { registry, file };
  const entry = dragonflyEntry(found, upstream);
  if (former === undefined) {
    const text = upstream === undefined ? entry : `server = ${JSON.stringify(upstream)}\n\n${entry}`;
    if (!dryRun) await write(file, text);
    return { ...step, action: 'written', text };
  }
  let parsed: ReturnType<typeof parseHostsFile>;
  try {
    parsed = parseHostsFile(former, { name: file, directory: join(file, '..') });
  } catch (error) {
    return { ...step, action: 'kept', why: (error as Error).message };
  }
  if (parsed.hosts.some(({ origin }) => origin === found.url)) {
    return { ...step, action: 'kept', why: `it names ${found.url} already` };
  }
  const text = insertHost(former, entry);
  if (!isExtension(former, text, file))
    return { ...step, action: 'kept', why: 'it cannot be extended safely; add the entry by hand', text: entry };
  if (!dryRun) await write(file, text);
  return { ...step, action: 'extended', text: entry };
}

/** Before the first table of the file: keys at the top stay at the top. */
function insertHost(text: string, entry: string): string {
  const lines = text.split('\n');
  const first = lines.findIndex((line) => /^\s*\[/.test(line));
  if (first === -1) return `${text.trimEnd()}\n\n${entry}`;
  return [...lines.slice(0, first), ...entry.split('\n'), ...lines.slice(first)].join('\n');
}

/** The new text says what the former one said, and one host more in front. */
function isExtension(former: string, text: string, file: string): boolean {
  try {
    const before = parseHostsFile(former, { name: file, directory: '/' });
    const after = parseHostsFile(text, { name: file, directory: '/' });
    return (
      JSON.stringify(before.hosts) === JSON.stringify(after.hosts.slice(1)) &&
      JSON.stringify(before.server) === JSON.stringify(after.server)
    );
  } catch {
    return false;
  }
}

/** The file in effect for the registry itself (not `_default`), or the one that would be made. */
async function existing(root: string, registry: string): Promise<{ file: string; text: string | undefined }> {
  const folders = registry === '_default' ? [join(root, '_default')] : hostFolders(root, registry).slice(0, -1);
  for (const folder of folders) {
    const file = join(folder, 'hosts.toml');
    try {
      return { file, text: await readFile(file, 'utf8') };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw cannot('read', file, error);
    }
  }
  return { file: join(folders[0] as string, 'hosts.toml'), text: undefined };
}

async function write(file: string, text: string): Promise<void> {
  try {
    await mkdir(join(file, '..'), { recursive: true });
    // containerd and shoal may be reading.
    const draft = `${file}.new`;
    await writeFile(draft, text, { mode: 0o644 });
    await rename(draft, file);
  } catch (error) {
    throw cannot('write', file, error);
  }
}

function cannot(what: string, file: string, cause: unknown): ShoalError {
  const why = (cause as NodeJS.ErrnoException).code ?? String(cause);
  return new ShoalError('FAILED_PRECONDITION', `cannot ${what} ${file} (${why})`, { cause });
}
