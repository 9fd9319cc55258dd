import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { ShoalError } from '../../errors.ts';
import type { Credential, CredentialSource } from './credentials.ts';
import { authEntry, isObject, readSecretJson } from './docker-config.ts';
import { matchingKeys } from './kubelet-match.ts';

/** File names of the two kinds of pull secret, as a volume shows them. */
const KEYS = ['.dockerconfigjson', '.dockercfg'] as const;
/** Secrets in one folder; each costs a read per token. */
const MAX_SECRETS = 256;

/**
 * Pull secrets of Kubernetes as files: `path` is one such file, a mounted secret, or a folder of mounted secrets. Read
 * anew each time, so that what kubelet updates counts at once. Keys are matched as kubelet does, with wildcards and
 * paths. Nothing there: no credentials. Throws CONFIG_INVALID for a file that is broken.
 */
export function createKubernetesSecrets(init: { path: string }): CredentialSource {
  return {
    name: 'pull secrets',
    async find(registry, repository, { signal }) {
      const found: Credential[] = [];
      for (const file of await secretFiles(init.path)) {
        const json = await readSecretJson(file, signal);
        // .dockercfg is what dockerconfigjson has below "auths".
        const auths = isObject(json?.auths) ? json.auths : file.endsWith('.dockercfg') ? json : undefined;
        if (auths === undefined) continue;
        for (const key of matchingKeys(Object.keys(auths), `${registry}/${repository}`)) {
          const credential = authEntry(auths[key], `${key} in ${file}`);
          if (credential !== undefined) found.push(credential);
        }
      }
      return found;
    },
  };
}

async function secretFiles(path: string): Promise<string[]> {
  const found = await stat(path).catch(notThere);
  if (found === undefined) return [];
  if (!found.isDirectory()) return [path];
  const own = await existing(KEYS.map((key) => join(path, key)));
  if (own.length > 0) return own;
  // "..data" and "..2026_…" are how kubelet swaps versions.
  const names = (await readdir(path)).filter((name) => !name.startsWith('.')).sort();
  const nested = names.slice(0, MAX_SECRETS).flatMap((name) => KEYS.map((key) => join(path, name, key)));
  return await existing(nested);
}

async function existing(paths: readonly string[]): Promise<string[]> {
  const stats = await Promise.all(paths.map((path) => stat(path).catch(notThere)));
  return paths.filter((_, index) => stats[index]?.isFile() === true);
}

function notThere(error: unknown): undefined {
  const { code, path } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
  throw new ShoalError('CONFIG_INVALID', `cannot read ${path ?? 'a pull secret'} (${code})`, { cause: error });
}
