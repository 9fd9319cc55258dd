import type { PolicyName } from '../scenario/scenario.ts';
import { createPlainPolicy } from './plain.ts';
import type { Policy, PolicyComponents } from './policy.ts';
import { createSchedulerPolicy } from './scheduler.ts';
import { createShoalPolicy } from './shoal/shoal.ts';
import { createWholeLayerPolicy } from './whole-layer.ts';

/** The policy of this name. */
export function createPolicy(name: PolicyName, components: PolicyComponents): Policy {
  switch (name) {
    case 'shoal':
      return createShoalPolicy(components, { claims: components.scenario.shoal.claims });
    case 'neighbours':
      return createShoalPolicy(components, { claims: false });
    case 'plain':
      return createPlainPolicy(components);
    case 'whole-layer':
      return createWholeLayerPolicy(components);
    case 'scheduler':
      return createSchedulerPolicy(components);
  }
}
