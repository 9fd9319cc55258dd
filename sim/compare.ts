import type { Comparison, PolicyResult } from './result.ts';
import { type RunInit, runPolicy } from './run.ts';
import { loadScenario, type Override } from './scenario/parse.ts';
import type { Scenario } from './scenario/scenario.ts';

/** Runs every policy of the scenario, one after the other. Throws what `runPolicy` throws. */
export async function compare(scenario: Scenario, init: RunInit): Promise<Comparison> {
  const results: PolicyResult[] = [];
  for (const policy of scenario.policies) results.push(await runPolicy(scenario, policy, init));
  const { title, seed, nodes } = scenario;
  return { title, scenario: init.path, seed, nodes: nodes.count, results };
}

/** A key and the values to try. */
export interface Sweep {
  readonly key: string;
  readonly values: readonly unknown[];
}

/** The scenario once per value; all are checked before the first runs. Throws CONFIG_INVALID too. */
export async function sweepOver(
  sweep: Sweep,
  init: RunInit & { overrides: readonly Override[]; onPoint?: (value: unknown) => void },
): Promise<Comparison[]> {
  const scenarios = sweep.values.map((value) => loadScenario(init.path, [...init.overrides, [sweep.key, value]]));
  const comparisons: Comparison[] = [];
  for (const [at, scenario] of scenarios.entries()) {
    init.onPoint?.(sweep.values[at]);
    comparisons.push(await compare(scenario, init));
  }
  return comparisons;
}
