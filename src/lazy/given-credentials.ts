import type { Config } from '../config.ts';
import { type ImageProxy, serveImageProxy } from '../cri/image-proxy.ts';
import type { Logger } from '../log.ts';
import type { Repository } from '../source/origin/registry-client.ts';
import { createRememberedCredentials, type RememberedCredentials } from '../source/origin/remembered-credentials.ts';

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

/** The image service for kubelet, when one is configured. */
export async function serveConfiguredImages(
  { cri }: Pick<Config, 'cri'>,
  components: { pulls: RememberedCredentials; log: Logger },
): Promise<ImageProxy | undefined> {
  const { socket, containerdSocket } = cri;
  return socket === undefined ? undefined : await serveImageProxy(components, { socket, containerdSocket });
}
