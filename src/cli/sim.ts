import { writeFileSync } from 'node:fs';
import {
  COLUMNS,
  type Comparison,
  compare,
  loadScenario,
  type Override,
  type Progress,
  renderReport,
  type Sweep,
  sweepOver,
} from '../../sim/index.ts';
import { ShoalError } from '../errors.ts';
import type { Command, Invocation } from './command.ts';
import { EXIT, UsageError } from './exit-code.ts';
import { bar, type Io, paint, table } from './output.ts';

/** Real time between two updates of the progress bar, ms. */
const UPDATE_MS = 100;
const BAR_WIDTH = 24;

/** `shoal sim`: what a roll-out would cost, before it happens. */
export const simCommand: Command = {
  name: 'sim',
  args: 'SCENARIO',
  argCount: { min: 1, max: 1 },
  summary: 'simulate a roll-out: start times, registry egress, rival policies side by side',
  description:
    "Runs the scenario (a TOML file, see docs/simulation.md and sim/scenarios/) in virtual time with the daemon's own\npolicy code, and the same with other ways to bring images to nodes. Nothing is contacted. Equal scenario and seed give\nequal results.",
  options: {
    json: { type: 'boolean', description: 'print JSON' },
    report: { type: 'string', value: 'PATH', description: 'write a self-contained HTML page with plots' },
    set: {
      type: 'string',
      value: 'KEY=VALUE',
      multiple: true,
      description: 'override a key of the scenario, e.g. nodes.count=500; may be given several times',
    },
    sweep: { type: 'string', value: 'KEY=A,B,C', description: 'run once per value and compare' },
  },
  async run(invocation) {
    const { args, options, io, signal } = invocation;
    const [path] = args as [string];
    const overrides = Array.isArray(options.set) ? options.set.map(overrideOf) : [];
    const progress = createProgress(io);
    const init = { path, signal, onProgress: progress.show, realNowMs: () => performance.now() };
    if (typeof options.sweep === 'string')
      return await runSweep(sweepOf(options.sweep), invocation, { ...init, overrides });
    const comparison = await compare(loadScenario(path, overrides), init);
    progress.clear();
    writeReport(options.report, renderReport(comparison));
    io.out(options.json === true ? `${JSON.stringify(comparison, null, 2)}\n` : renderTable(comparison, io));
    return EXIT.ok;
  },
};

async function runSweep(
  sweep: Sweep,
  { options, io }: Invocation,
  init: Parameters<typeof sweepOver>[1],
): Promise<number> {
  const comparisons = await sweepOver(sweep, init);
  if (io.isTty) io.err('\u001b[2K\r');
  const [first] = comparisons as [Comparison, ...Comparison[]];
  const policies = first.results.map(({ policy }) => policy);
  const points = comparisons.map(({ results }) => results);
  writeReport(options.report, renderReport(first, { ...sweep, policies, points }));
  if (options.json === true) {
    io.out(`${JSON.stringify({ ...sweep, comparisons }, null, 2)}\n`);
    return EXIT.ok;
  }
  for (const [at, comparison] of comparisons.entries()) {
    io.out(`${paint(io, 'bold', `${sweep.key} = ${String(sweep.values[at])}`)}\n${renderRows(comparison)}\n`);
  }
  return EXIT.ok;
}

function renderTable(comparison: Comparison, io: Io): string {
  const { title, nodes, seed } = comparison;
  return `${paint(io, 'bold', title)}\n${nodes} nodes, seed ${seed}\n\n${renderRows(comparison)}`;
}

function renderRows({ results }: Comparison): string {
  const rows = [
    ['policy', ...COLUMNS.map(({ title }) => title)],
    ...results.map((result) => [result.policy, ...COLUMNS.map(({ value, show }) => show(value(result)))]),
  ];
  const bound = results[0]?.boundMs;
  if (bound !== undefined) {
    const shown = [bound.p50, bound.p99].map((ms, at) => COLUMNS[at]?.show(ms) ?? '');
    rows.push(['fluid bound', ...shown]);
  }
  return table(
    rows,
    COLUMNS.map((_, at) => at + 1),
  );
}

function writeReport(path: unknown, html: string): void {
  if (typeof path !== 'string') return;
  try {
    writeFileSync(path, html);
  } catch (cause) {
    throw new ShoalError('STORE_IO', `${path} can't be written: ${(cause as Error).message}`, { cause });
  }
}

function overrideOf(text: string): Override {
  const at = text.indexOf('=');
  if (at < 1) throw new UsageError(`expected KEY=VALUE, got ${text}`, 'sim');
  return [text.slice(0, at), parsedValue(text.slice(at + 1))];
}

function sweepOf(text: string): Sweep {
  const [key, list] = overrideOf(text) as [string, unknown];
  const values = String(list).split(',').map(parsedValue);
  return { key, values };
}

/** Numbers and booleans as such, anything else as text. */
function parsedValue(text: string): unknown {
  if (text === 'true' || text === 'false') return text === 'true';
  return text.trim() !== '' && Number.isFinite(Number(text)) ? Number(text) : text;
}

/** A bar on a terminal; elsewhere nothing. */
function createProgress(io: Io): { show(progress: Progress): void; clear(): void } {
  let shownMs = Number.NEGATIVE_INFINITY;
  return {
    show({ policy, nowMs, ready, starts }) {
      if (!io.isTty || performance.now() - shownMs < UPDATE_MS) return;
      shownMs = performance.now();
      const simulated = `${(nowMs / 1_000).toFixed(1)} s simulated`;
      io.err(
        `\u001b[2K\r${policy.padEnd(12)} ${bar(ready, starts, BAR_WIDTH)} ${ready}/${starts} ready, ${simulated}\r`,
      );
    },
    clear() {
      if (io.isTty) io.err('\u001b[2K\r');
    },
  };
}
