import type { Host } from '../network/host.ts';
import type { SimLayer } from '../workload/image.ts';
import type { Policy, PolicyComponents } from './policy.ts';
import { createWholeImagePolicy } from './whole-image.ts';

/**
 * Plain pulls: every node downloads every layer from the registry. containerd fetches three layers of an image at a time
 * (`max_concurrent_downloads`), each with one request.
 */
export function createPlainPolicy({ world, scenario, blobs }: PolicyComponents): Policy {
  const download = (host: Host, layer: SimLayer, done: () => void): void => {
    world.registry.fetch(host, layer.compressedBytes, (how) => how === 'done' && done());
  };
  return createWholeImagePolicy({ world, download }, { layersAtOnce: scenario.plain.layersAtOnce, blobs });
}
