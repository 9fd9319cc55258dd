import type { ControlRoute } from '../control/server.ts';

/** `GET /v1/swarm/peers`: this node's place in the swarm; nothing without one. */
export function swarmRoutes(directory: { status(): unknown } | undefined): ControlRoute[] {
  if (directory === undefined) return [];
  return [{ method: 'GET', path: '/v1/swarm/peers', handle: () => directory.status() }];
}
