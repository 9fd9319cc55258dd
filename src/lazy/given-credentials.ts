import type { Repository } from '../source/origin/registry-client.ts';
import type { RememberedCredentials } from '../source/origin/remembered-credentials.ts';
import { createRememberedCredentials } from '../source/origin/remembered-credentials.ts';

/** Credentials that come with the work: before all that are configured. */
export interface GivenCredentials {
  /** From snapshot labels. */
  readonly labels: RememberedCredentials;
  /** From kubelet's pulls. */
  readonly pulls: RememberedCredentials;
  /** Both, in the order they are tried. */
  readonly sources: readonly RememberedCredentials[];
}

/** Nothing is known yet; `renewed` is told of each repository that gets a new credential. */
export function createGivenCredentials(renewed: (repository: Repository) => void): GivenCredentials {
  const changed = (registry: string, repository: string): void => renewed({ registry, repository });
  const labels = createRememberedCredentials({ changed }, { name: 'the snapshot labels' });
  const pulls = createRememberedCredentials({ changed }, { name: "kubelet's pull" });
  return { labels, pulls, sources: [labels, pulls] };
}
