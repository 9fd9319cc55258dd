import { type Credential, type CredentialSource, sameCredential } from './credentials.ts';

/** Credentials somebody gave for one repository, in memory only; the newest counts. */
export interface RememberedCredentials extends CredentialSource {
  /** Keeps it for the repository; what is given back brings the former one back, for when it turns out to be wrong. */
  remember(registry: string, repository: string, credential: Credential): () => void;
}

/** Repositories whose credential is kept, some 500 bytes each; the one unused for longest goes first. */
const MAX_REMEMBERED = 4_096;

/** An empty memory; `changed` is told of each repository that has a new credential. */
export function createRememberedCredentials(
  components: { changed?(registry: string, repository: string): void },
  init: { name: string; maxRemembered?: number },
): RememberedCredentials {
  const most = init.maxRemembered ?? MAX_REMEMBERED;
  const held = new Map<string, Credential>();

  function put(key: string, credential: Credential): void {
    held.delete(key);
    held.set(key, credential);
    const oldest = held.keys().next().value;
    if (held.size > most && oldest !== undefined) held.delete(oldest);
  }

  return {
    name: init.name,
    async find(registry, repository) {
      const key = `${registry}/${repository}`;
      const credential = held.get(key);
      if (credential === undefined) return [];
      put(key, credential);
      return [credential];
    },
    remember(registry, repository, credential) {
      const key = `${registry}/${repository}`;
      const former = held.get(key);
      put(key, credential);
      if (former === undefined || !sameCredential(former, credential)) components.changed?.(registry, repository);
      return () => {
        if (held.get(key) !== credential) return;
        if (former === undefined) held.delete(key);
        else put(key, former);
      };
    },
  };
}
