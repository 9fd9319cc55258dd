/** The simulator's public face: what the command line uses. */
export { compare, type Sweep, sweepOver } from './compare.ts';
export { COLUMNS } from './report/columns.ts';
export { renderReport, type SweepResult } from './report/html.ts';
export type { Comparison, PolicyResult } from './result.ts';
export type { Progress } from './run.ts';
export { loadScenario, type Override } from './scenario/parse.ts';
export type { Scenario } from './scenario/scenario.ts';
export type { TraceLayerLine, TraceReadLine } from './workload/trace.ts';
