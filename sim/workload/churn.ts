import type { Random } from '../engine/random.ts';
import type { Host } from '../network/host.ts';
import type { World } from '../network/world.ts';
import type { Scenario } from '../scenario/scenario.ts';

/** Lets nodes die and come back as a scenario says. */
export function scheduleChurn(
  components: { world: World; random: Random },
  scenario: Scenario,
  told: { died: (host: Host, forGood: boolean) => void; returned: (host: Host, keepsDisk: boolean) => void },
): void {
  const { world } = components;
  for (const [name, churn] of Object.entries(scenario.churn)) {
    const random = components.random.fork(`churn ${name}`);
    const hosts = random.shuffle([...world.nodes]).slice(0, Math.round(churn.share * world.nodes.length));
    const { backAfterS, keepsDisk } = churn;
    for (const host of hosts) {
      const delayMs = 1_000 * (churn.atS + random.next() * churn.overS);
      world.timeline.after(delayMs, () => {
        if (!host.isUp) return;
        world.kill(host);
        told.died(host, backAfterS === undefined);
        if (backAfterS === undefined) return;
        world.timeline.after(1_000 * backAfterS, () => {
          world.revive(host);
          told.returned(host, keepsDisk);
        });
      });
    }
  }
}
