import type { Scenario } from '../scenario/scenario.ts';
import type { Zone } from './host.ts';

/** Each node's zone: zones get nodes in proportion to their weights, in turn, so that any first part is spread alike. */
export function placesOf(zones: readonly Zone[], specs: Scenario['zone'], count: number, core: Zone): Zone[] {
  const open = zones.filter(({ name }) => (specs[name]?.weight ?? 0) > 0);
  if (open.length === 0) return new Array<Zone>(count).fill(core);
  const given = open.map(() => 0);
  return Array.from({ length: count }, () => {
    let best = 0;
    let least = Number.POSITIVE_INFINITY;
    for (const [at, { name }] of open.entries()) {
      const filled = ((given[at] as number) + 1) / (specs[name]?.weight as number);
      if (filled < least) [best, least] = [at, filled];
    }
    given[best] = (given[best] as number) + 1;
    return open[best] as Zone;
  });
}

/** Each node's group, spread evenly over the nodes; undefined for those in none. */
export function groupsOf(nodes: Scenario['nodes']): (Scenario['nodes']['group'][string] | undefined)[] {
  const groups = Object.values(nodes.group);
  const owed = groups.map(() => 0);
  return Array.from({ length: nodes.count }, () => {
    for (const [at, { share }] of groups.entries()) owed[at] = (owed[at] as number) + share;
    const most = owed.indexOf(Math.max(...owed, 0));
    if (most === -1 || (owed[most] as number) < 1 - 1e-9) return undefined;
    owed[most] = (owed[most] as number) - 1;
    return groups[most];
  });
}
