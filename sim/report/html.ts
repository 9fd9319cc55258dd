import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { Comparison, PolicyResult } from '../result.ts';
import { COLUMNS } from './columns.ts';

/** A parameter that was varied, and what each value came to. */
export interface SweepResult {
  readonly key: string;
  readonly values: readonly unknown[];
  readonly policies: readonly string[];
  readonly points: readonly (readonly PolicyResult[])[];
}

const require = createRequire(import.meta.url);

/** One self-contained page: table and plots, working without a network. */
export function renderReport(comparison: Comparison, sweep?: SweepResult): string {
  const data = JSON.stringify({ ...comparison, sweep }).replaceAll('<', '\\u003c');
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escaped(comparison.title)}</title>
<style>${fileOf(require.resolve('uplot/dist/uPlot.min.css'))}
${fileOf(new URL('./page.css', import.meta.url))}</style>
</head>
<body>
<main>
<h1>${escaped(comparison.title)}</h1>
<p>${comparison.nodes} nodes, seed ${comparison.seed}, ${escaped(comparison.scenario)}. Simulated: docs/simulation.md says what the model leaves out.</p>
${sweep === undefined ? '' : sweepSections(sweep)}
${sectionOf('', 'Side by side', 'Best of each column in bold; the bound is what no policy can beat on these links.', tableOf(comparison))}
${plotSection('start-times', 'Start times', 'From the start of a container to the answer of its last read at start, all starts together.')}
${plotSection('egress', 'Registry egress', 'What the registry sends, over time.')}
${plotSection('bytes-by-source', 'Bytes by source', 'What the nodes received, by where it came from.')}
${plotSection('zone-links', 'Links into zones', 'Part of their capacity that was used over the whole run.', 'zones')}
${plotSection('messages', 'Control messages', 'Per node, by kind, over the whole run.')}
${plotSection('control', 'Control messages over time', 'All nodes together.')}
${plotSection('hot-spots', 'Hot spots', 'What each node sent to others, those that sent most first: a flat line is an even load.')}
<footer>shoal sim. Plots: uPlot (MIT licence).</footer>
</main>
<script type="application/json" id="comparison">${data}</script>
<script>${fileOf(require.resolve('uplot/dist/uPlot.iife.min.js'))}</script>
<script>${fileOf(new URL('./page.js', import.meta.url))}</script>
</body>
</html>
`;
}

function sweepSections({ key }: SweepResult): string {
  return [
    plotSection('sweep-start', `Start time by ${key}`, 'The 99th percentile of each policy.'),
    plotSection('sweep-egress', `Registry egress by ${key}`, 'Bytes the registry sent per distinct byte read.'),
  ].join('\n');
}

function plotSection(id: string, title: string, text: string, sectionId = ''): string {
  return sectionOf(sectionId, title, text, `<div class="plot" id="${id}"></div>`);
}

function sectionOf(id: string, title: string, text: string, content: string): string {
  const attribute = id === '' ? '' : ` id="${id}"`;
  return `<section${attribute}><h2>${escaped(title)}</h2><p>${escaped(text)}</p>${content}</section>`;
}

function tableOf({ results }: Comparison): string {
  const head = ['policy', ...COLUMNS.map(({ title }) => title)].map((title) => `<th>${escaped(title)}</th>`).join('');
  const rows = results.map((result) => {
    const cells = COLUMNS.map(({ show, value }) => {
      const own = value(result);
      const isBest = results.length > 1 && results.every((other) => value(other) >= own);
      return `<td${isBest ? ' class="best"' : ''}>${escaped(show(own))}</td>`;
    });
    return `<tr><td>${result.policy}</td>${cells.join('')}</tr>`;
  });
  return `<table><thead><tr>${head}</tr></thead><tbody>${rows.join('')}</tbody></table>`;
}

function fileOf(path: string | URL): string {
  return readFileSync(path, 'utf8').replaceAll('</script', '<\\/script');
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}
