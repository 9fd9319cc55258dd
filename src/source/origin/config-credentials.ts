import { readFile } from 'node:fs/promises';
import { ShoalError } from '../../errors.ts';
import { basicCredential, type CredentialSource, canonicalHost } from './credentials.ts';
import { Secret } from './secret.ts';

/** Credentials of the configuration file, by registry host. A password file is read each time: a rotated one counts. */
export type StaticCredentials = Readonly<
  Record<
    string,
    | { readonly username: string; readonly password: string }
    | { readonly username: string; readonly passwordFile: string }
    | { readonly identityToken: string }
  >
>;

/** Credentials given by name. Throws CONFIG_INVALID for a password file that cannot be read any more. */
export function createStaticCredentials(entries: StaticCredentials, name = 'configuration'): CredentialSource {
  const byHost = new Map(Object.entries(entries).map(([host, entry]) => [canonicalHost(host), entry]));
  return {
    name,
    async find(registry, _repository, { signal }) {
      const entry = byHost.get(canonicalHost(registry));
      if (entry === undefined) return [];
      if ('identityToken' in entry) return [{ kind: 'identity-token', token: new Secret(entry.identityToken) }];
      const password = 'password' in entry ? entry.password : await readPassword(entry.passwordFile, signal);
      return [basicCredential(entry.username, password)];
    },
  };
}

async function readPassword(path: string, signal: AbortSignal): Promise<string> {
  try {
    return (await readFile(path, { encoding: 'utf8', signal })).replace(/\r?\n$/, '');
  } catch (cause) {
    if (signal.aborted) throw signal.reason;
    throw new ShoalError('CONFIG_INVALID', `cannot read ${path}`, { cause });
  }
}
