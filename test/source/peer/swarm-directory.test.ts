import { peerDirectorySuite } from '../../suites/peer-directory-suite.ts';
import { testSwarm } from './swarms.ts';

peerDirectorySuite('swarm', async (held) => {
  const swarm = testSwarm();
  for (const one of held) await swarm.add({ held: one });
  await swarm.connected();
  return { members: swarm.nodes, cleanup: async () => await swarm[Symbol.asyncDispose]() };
});
