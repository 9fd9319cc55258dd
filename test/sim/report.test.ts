import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { compare } from '../../sim/compare.ts';
import { renderReport } from '../../sim/report/html.ts';
import { parseScenario } from '../../sim/scenario/parse.ts';

const SCENARIO = `title = "Is <b>this</b> drawn?"
[nodes]
count = 6
[zone.a]
down_mbit_per_s = 500
[zone.b]
down_mbit_per_s = 500
[image.app]
size_mib = 8
layers = 2
[arrival.all]
image = "app"
`;

/** Counts, in the page, the coloured pixels of every plot, and writes them where `--dump-dom` shows them. */
const PROBE = `<script>
  const marks = {};
  for (const plot of document.querySelectorAll('.plot')) {
    const canvas = plot.querySelector('canvas');
    let count = 0;
    if (canvas !== null) {
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      for (let at = 0; at < data.length; at += 4) {
        const spread = Math.max(data[at], data[at + 1], data[at + 2]) - Math.min(data[at], data[at + 1], data[at + 2]);
        if (data[at + 3] > 0 && spread > 60) count += 1;
      }
    }
    marks[plot.id] = count;
  }
  document.title = 'MARKS' + JSON.stringify(marks) + 'END';
</script>`;

const PLOTS = ['start-times', 'egress', 'bytes-by-source', 'zone-links', 'messages', 'control', 'hot-spots'];

async function makeComparison() {
  const scenario = parseScenario(SCENARIO, { name: 'drawn.toml' });
  return await compare(scenario, { path: 'drawn.toml', signal: new AbortController().signal });
}

/** Coloured pixels of each plot, as a browser without a network draws the page. */
function marksIn(html: string): Record<string, number> {
  const folder = mkdtempSync(join(tmpdir(), 'shoal-report-'));
  try {
    const page = join(folder, 'report.html');
    writeFileSync(page, html.replace('</body>', `${PROBE}</body>`));
    const args = [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--host-resolver-rules=MAP * ~NOTFOUND',
      `--user-data-dir=${join(folder, 'profile')}`,
      '--window-size=1100,900',
      '--virtual-time-budget=5000',
      '--dump-dom',
      `file://${page}`,
    ];
    const { stdout, error, stderr } = spawnSync('chromium', args, { encoding: 'utf8', timeout: 90_000 });
    assert.equal(error, undefined);
    const found = /MARKS(\{.*?\})END/.exec(stdout.replaceAll('&quot;', '"'))?.[1];
    assert.ok(found !== undefined, `the page did not run to its end: ${stderr.slice(-2_000)}`);
    return JSON.parse(found) as Record<string, number>;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const skip = spawnSync('chromium', ['--version']).status === 0 ? false : 'chromium is not installed';

test('every plot of a report shows drawn marks in a browser without a network', { skip }, async () => {
  const html = renderReport(await makeComparison());
  const marks = marksIn(html);
  for (const plot of PLOTS) assert.ok((marks[plot] ?? 0) > 200, `${plot}: ${marks[plot]} coloured pixels`);
  assert.ok(html.includes('Is &lt;b&gt;this&lt;/b&gt; drawn?'));
});

test('a sweep gets its comparison plots', { skip }, async () => {
  const comparison = await makeComparison();
  const policies = comparison.results.map(({ policy }) => policy);
  const points = [comparison.results, comparison.results.map((result) => ({ ...result, egressRatio: 3 }))];
  const marks = marksIn(renderReport(comparison, { key: 'nodes.count', values: [6, 60], policies, points }));
  for (const plot of ['sweep-start', 'sweep-egress']) {
    assert.ok((marks[plot] ?? 0) > 200, `${plot}: ${marks[plot]} coloured pixels`);
  }
});

test('a report without its data draws nothing, so the marks of the others are marks of data', { skip }, async () => {
  const comparison = await makeComparison();
  const marks = marksIn(renderReport({ ...comparison, results: [] }));
  for (const plot of ['start-times', 'egress', 'hot-spots']) {
    assert.ok((marks[plot] ?? 0) < 50, `${plot}: ${marks[plot]}`);
  }
});

test('a report asks for nothing from elsewhere', async () => {
  const html = renderReport(await makeComparison());
  assert.doesNotMatch(html, /<(script|link|img|iframe)[^>]+(src|href)=/);
  assert.doesNotMatch(html, /@import|fetch\(|XMLHttpRequest/);
});
