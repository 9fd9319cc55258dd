import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { loadScenario, parseScenario } from '../../sim/scenario/parse.ts';
import { ShoalError } from '../../src/errors.ts';

const GOOD = `title = "How long?"

[nodes]
count = 10

[image.app]
size_mib = 8
layers = 2

[arrival.all]
image = "app"
`;

function refusal(text: string): string {
  try {
    parseScenario(text, { name: 's.toml' });
  } catch (error) {
    assert.ok(error instanceof ShoalError);
    assert.equal(error.code, 'CONFIG_INVALID');
    return error.message;
  }
  return 'accepted';
}

test('a short scenario gets every default', () => {
  const scenario = parseScenario(GOOD, { name: 's.toml' });
  assert.equal(scenario.nodes.upMbitPerS, 1_000);
  assert.equal(scenario.image.app?.chunkKib, 1_024);
  assert.equal(scenario.wholeLayer.resolveMs, 20);
  assert.equal(scenario.policies.length, 5);
});

test('a wrong key is refused by name and line, with the one that was meant', () => {
  const text = GOOD.replace('size_mib = 8', 'size_mb = 8');
  assert.equal(refusal(text), 's.toml line 7: unknown key image.app.size_mb; did you mean size_mib?');
});

test('a negative capacity is refused by name and line', () => {
  const text = GOOD.replace('count = 10', 'count = 10\nup_mbit_per_s = -1');
  assert.equal(refusal(text), 's.toml line 5: nodes.up_mbit_per_s must be >= 0.1');
});

test('a zone that lies in itself is refused by name and line', () => {
  const text = `${GOOD}\n[zone.a]\nparent = "b"\n\n[zone.b]\nparent = "c"\n\n[zone.c]\nparent = "a"\n`;
  assert.equal(refusal(text), 's.toml line 20: zone.a lies in itself: a → b → c → a');
  assert.equal(refusal(`${GOOD}\n[zone.a]\nparent = "x"\n`), 's.toml line 14: zone.a.parent: there is no zone x');
});

test('arrivals that cannot happen are refused by name and line', () => {
  const cases: [string, string][] = [
    ['nodes = 11', "s.toml line 12: arrival.all.nodes: 11 nodes can't start it, there are 10"],
    ['at_s = 4000', 's.toml line 12: arrival.all.at_s: comes after the end of the run at 3600 s'],
    ['kind = "poisson"', 's.toml line 10: arrival.all: kind poisson needs per_s above 0'],
    ['kind = "rolling"\nsurge = 0', 's.toml line 13: arrival.all.surge: with 0 no node ever starts'],
    ['per_s = 3', 's.toml line 12: arrival.all.per_s: only means something with kind poisson'],
  ];
  for (const [line, expected] of cases) assert.equal(refusal(`${GOOD}${line}\n`), expected);
  assert.match(
    refusal(GOOD.replace('image = "app"', 'image = "ap"')),
    /line 11: arrival.all.image: there is no image ap/,
  );
});

test('images and groups that contradict themselves are refused', () => {
  assert.match(refusal(GOOD.replace('size_mib = 8', 'size_mib = 1')), /a chunk is larger than a layer/);
  assert.match(refusal(GOOD.replace('layers = 2', 'shares_with = "app"')), /shares_with goes in a circle/);
  assert.match(refusal(GOOD.replace('layers = 2', 'shared = 0.5')), /shared is set without shares_with/);
  const groups = '\n[nodes.group.a]\nshare = 0.6\n\n[nodes.group.b]\nshare = 0.6\n';
  assert.match(refusal(GOOD + groups), /line 17: nodes.group.b.share: the groups add up to more than all nodes/);
  assert.equal(refusal(GOOD.replace('title = "How long?"', '')), 's.toml: title is missing');
});

test('what a sweep sets is checked like the file, and named', () => {
  const overrides = [['nodes.count', 0]] as const;
  assert.throws(() => parseScenario(GOOD, { name: 's.toml', overrides }), /the command line: nodes.count must be >= 1/);
});

test('no text makes the parser throw anything but CONFIG_INVALID', () => {
  const lines = GOOD.split('\n');
  const values = ['-1', '1e99', '"x"', '[]', '{}', 'true', 'nan', '0'];
  fc.assert(
    fc.property(
      fc.nat(lines.length - 1),
      fc.constantFrom(...values),
      fc.string({ maxLength: 12 }),
      (at, value, noise) => {
        const changed = [...lines];
        changed[at] = (changed[at] as string).replace(/=.*/, `= ${value}`) + noise;
        refusal(changed.join('\n'));
      },
    ),
    { numRuns: 300 },
  );
});

test('there are at least ten scenarios, each is valid and asks a question of its own', () => {
  const files = globSync('sim/scenarios/*.toml');
  assert.ok(files.length >= 10, `${files.length}`);
  const titles = new Set(files.map((file) => loadScenario(file).title));
  assert.equal(titles.size, files.length);
  for (const title of titles) assert.ok(title.endsWith('?'), title);
  for (const file of files) assert.ok(readFileSync(file, 'utf8').length < 4_096);
});
