import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../clock.ts';
import { ShoalError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { type HostsFile, parseHostsFile } from './hosts-file.ts';
import { MIRROR_LIMITS } from './limits.ts';

/** What the directory says of one registry now. The same object as long as nothing changed. */
export interface RegistryHosts extends HostsFile {
  /** The file it comes from; undefined when there is none. */
  readonly file: string | undefined;
  /** PEM text of the files named in it, by path. */
  readonly certificates: ReadonlyMap<string, string>;
  /** Why the newest version of the file is not in effect. */
  readonly error?: string;
}

/** A containerd-compatible `certs.d` tree, looked at again when it may have changed. Never throws. */
export interface HostsDirectory {
  /** At once when it was looked at a moment ago. */
  of(registry: string): RegistryHosts | Promise<RegistryHosts>;
}

interface Entry {
  hosts: RegistryHosts;
  fingerprint: string;
  checkedAtMs: number;
  looking: Promise<RegistryHosts> | undefined;
}

const NO_HOSTS: RegistryHosts = {
  file: undefined,
  hosts: [],
  server: undefined,
  warnings: [],
  certificates: new Map(),
};

/** No mirrors for anybody. */
export const NO_DIRECTORY: HostsDirectory = { of: () => NO_HOSTS };

/** Folders of a registry, the first that exists counts (containerd: `core/remotes/docker/config`). */
export function hostFolders(root: string, registry: string): string[] {
  const port = /^(.+):(\d+)$/.exec(registry);
  const names = port === null ? [registry] : [`${port[1]}_${port[2]}_`, registry];
  return [...names, '_default'].map((name) => join(root, name));
}

export function createHostsDirectory(
  components: { clock: Clock; log: Logger },
  init: { path: string },
): HostsDirectory {
  const { clock, log } = components;
  const known = new Map<string, Entry>();

  async function look(registry: string, entry: Entry): Promise<RegistryHosts> {
    const found = await find(init.path, registry);
    const fingerprint = await fingerprintOf(found, entry.hosts.certificates.keys());
    // What is wrong may be a certificate that is not looked after yet.
    if (fingerprint !== entry.fingerprint || entry.hosts.error !== undefined) {
      entry.hosts = await load(registry, found, entry.hosts);
      // The certificates may be others now.
      entry.fingerprint = await fingerprintOf(found, entry.hosts.certificates.keys());
    }
    entry.checkedAtMs = clock.nowMs();
    return entry.hosts;
  }

  async function load(registry: string, file: string | undefined, former: RegistryHosts): Promise<RegistryHosts> {
    if (file === undefined) return NO_HOSTS;
    try {
      const parsed = parseHostsFile(await readText(file, MIRROR_LIMITS.maxFileBytes), {
        name: file,
        directory: join(file, '..'),
      });
      const hosts = { ...parsed, file, certificates: await readCertificates(parsed) };
      for (const warning of hosts.warnings) log.warn('hosts.toml', { registry, warning });
      log.info('mirrors read', { registry, file, mirrors: hosts.hosts.map(({ origin }) => origin).join(',') });
      return hosts;
    } catch (cause) {
      const error = cause instanceof Error ? cause.message : String(cause);
      const kept =
        former.hosts.length === 0 && former.server === undefined
          ? 'the registry itself is asked'
          : 'the last good one stays in effect';
      if (error !== former.error) log.error(`hosts.toml is not usable, ${kept}`, { registry, error });
      return { ...former, file, error };
    }
  }

  return {
    of(registry) {
      let entry = known.get(registry);
      if (entry === undefined) {
        entry = { hosts: NO_HOSTS, fingerprint: '', checkedAtMs: -Infinity, looking: undefined };
        known.set(registry, entry);
        const oldest = known.keys().next().value;
        if (known.size > MIRROR_LIMITS.maxRegistries && oldest !== undefined) known.delete(oldest);
      }
      if (clock.nowMs() - entry.checkedAtMs < MIRROR_LIMITS.freshMs) return entry.hosts;
      const current = entry;
      current.looking ??= look(registry, current)
        .catch((error) => {
          log.error('mirrors cannot be read', { registry, error: String(error) });
          current.checkedAtMs = clock.nowMs();
          return current.hosts;
        })
        .finally(() => {
          current.looking = undefined;
        });
      return current.looking;
    },
  };
}

/** The registry's `hosts.toml`; a folder without one ends the search, as in containerd. */
async function find(root: string, registry: string): Promise<string | undefined> {
  for (const folder of hostFolders(root, registry)) {
    if ((await stateOf(folder)) === undefined) continue;
    const file = join(folder, 'hosts.toml');
    return (await stateOf(file)) === undefined ? undefined : file;
  }
  return undefined;
}

async function fingerprintOf(file: string | undefined, more: Iterable<string>): Promise<string> {
  if (file === undefined) return 'none';
  const states = await Promise.all([file, ...more].map(async (path) => `${path}=${await stateOf(path)}`));
  return states.join('|');
}

/** Changes whenever the file may have; undefined when it is not there. */
async function stateOf(path: string): Promise<string | undefined> {
  try {
    const { mtimeNs, ctimeNs, size, ino } = await stat(path, { bigint: true });
    return `${ino}.${size}.${mtimeNs}.${ctimeNs}`;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    return String(code);
  }
}

async function readCertificates({ hosts, server }: HostsFile): Promise<Map<string, string>> {
  const certificates = new Map<string, string>();
  for (const { ca, client } of server === undefined ? hosts : [...hosts, server]) {
    for (const path of [...ca, ...client.flat().filter((each) => each !== undefined)]) {
      if (!certificates.has(path)) {
        certificates.set(path, await readText(path, MIRROR_LIMITS.maxCertificateBytes));
      }
    }
  }
  return certificates;
}

async function readText(path: string, maxBytes: number): Promise<string> {
  try {
    const state = await stat(path);
    if (!state.isFile() || state.size > maxBytes) throw new Error(`not a file of at most ${maxBytes} bytes`);
    return await readFile(path, 'utf8');
  } catch (cause) {
    const why = (cause as NodeJS.ErrnoException).code ?? (cause as Error).message;
    throw new ShoalError('CONFIG_INVALID', `cannot read ${path} (${why})`, { cause });
  }
}
