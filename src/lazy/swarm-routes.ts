import type { ControlRoute } from '../control/server.ts';
import { parseDigest } from '../core/digest.ts';
import { ShoalError } from '../errors.ts';
import type { Neighbour } from '../source/peer/directory.ts';
import type { Swarm } from '../source/peer/swarm.ts';

/** A search from the command line may take the walk's time, and that of dialling who was found. */
const FIND_TIMEOUT_MS = 9_000;

/** What `shoal swarm` calls on the control socket; `swarm` is undefined when it is off. */
export function swarmRoutes(swarm: Swarm | undefined): ControlRoute[] {
  const on = (): Swarm => {
    if (swarm !== undefined) return swarm;
    throw new ShoalError('FAILED_PRECONDITION', 'the swarm is off: set swarm.listen and swarm.key_file');
  };
  return [
    { method: 'GET', path: '/v1/swarm', handle: () => on().status() },
    {
      method: 'POST',
      path: '/v1/swarm/find',
      async handle({ body, signal }) {
        const digest = parseDigest((body as { digest?: unknown } | undefined)?.digest);
        const limit = AbortSignal.any([signal, AbortSignal.timeout(FIND_TIMEOUT_MS)]);
        const providers: Neighbour[] = [];
        const directory = on();
        try {
          for await (const neighbour of directory.find(digest, { signal: limit })) providers.push(neighbour);
        } catch {
          signal.throwIfAborted();
        }
        return { digest, providers };
      },
    },
  ];
}
