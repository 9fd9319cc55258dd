import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { hasCode, ShoalError } from '../../src/errors.ts';
import { parseFilters } from '../../src/snapshot/filter.ts';
import { compileRegex } from '../../src/snapshot/regex.ts';
import type { SnapshotInfo } from '../../src/snapshot/snapshot-info.ts';

const EPOCH = { seconds: 0, nanos: 0 };

function snapshot(name: string, labels: Readonly<Record<string, string>> = {}, parent = ''): SnapshotInfo {
  return {
    name,
    parent,
    kind: 'active',
    created: EPOCH,
    updated: EPOCH,
    labels: new Map(Object.entries(labels)),
  };
}

const CORPUS = [
  snapshot('foo', { foo: 'true' }),
  snapshot('bar'),
  snapshot('foo2', { foo: 'present', 'more complex label': 'present' }),
  snapshot('bar2', { bar: 'true' }, 'too complex, yo'),
  snapshot('quoted', { 'more complex label with \\ and "': 'present' }),
  snapshot('post', { 'more complex label with \\ and ".post': 'present' }),
  snapshot('punctuated', { foo: 'omg_asdf.asdf-qwer' }, 'abc'),
  snapshot('牛', { 'a.b.c': 'dotted' }),
];

function matching(...filters: string[]): string[] {
  return CORPUS.filter(parseFilters(filters)).map(({ name }) => name);
}

function refusal(filter: string): string {
  try {
    parseFilters([filter]);
  } catch (error) {
    assert.ok(hasCode(error, 'INVALID_ARGUMENT'), String(error));
    return error.message;
  }
  return assert.fail(`${filter} was accepted`);
}

describe('filters', () => {
  const everyone = CORPUS.map(({ name }) => name);
  const cases: readonly (readonly [string, readonly string[]])[] = [
    ['', everyone],
    ['name', everyone],
    ['parent', everyone],
    ['nosuchfield', []],
    ['labels', []],
    ['labels.foo', ['foo', 'foo2', 'punctuated']],
    ['labels.foo,name', ['foo', 'foo2', 'punctuated']],
    ['labels.foo==true', ['foo']],
    ['labels.foo==omg_asdf.asdf-qwer', ['punctuated']],
    ['name==bar', ['bar']],
    ['name!=bar,labels.bar', ['bar2']],
    ['labels.foo!=true,name~=foo', ['foo2']],
    ['labels.nosuch!=x,name==bar', ['bar']],
    ['labels.nosuch!="",name==bar', []],
    ['parent=="too complex, yo"', ['bar2']],
    ['parent~=[abc]+,name!=foo', ['bar2', 'punctuated']],
    ['parent~=/[abc]{1,2}/', ['bar2', 'punctuated']],
    ['parent~=|^abc$|', ['punctuated']],
    ['parent~=/[abc]{0,1}"\\//,name!=foo', []],
    ['name==foo2,labels."more complex label"', ['foo2']],
    ['labels."more complex label with \\\\ and \\""==present', ['quoted']],
    ['labels."more complex label with \\\\ and \\"".post==present', ['post']],
    ['labels.a.b.c==dotted', ['牛']],
    ['labels."a.b".c', ['牛']],
    ['name==牛', ['牛']],
    ['name=="\\u725b"', ['牛']],
    ['name=="\\xe7\\x89\\x9b"', ['牛']],
    ['name=="\\347\\211\\233"', ['牛']],
    ['name =="foo" , kind== active'.replace(' ,', ','), ['foo']],
    ['kind==view', []],
    ['"name"==foo', ['foo']],
  ];
  for (const [filter, names] of cases) {
    it(`${filter || '(empty)'} finds ${names.length}`, () => assert.deepEqual(matching(filter), names));
  }

  it('are joined by or; none lets everything pass', () => {
    assert.deepEqual(matching('name==foo', 'name==bar'), ['foo', 'bar']);
    assert.deepEqual(matching(), everyone);
  });

  const refusals: readonly (readonly [string, string])[] = [
    ['labels.|foo|==x', '[labels. >|||< foo|==x]: invalid quote encountered (position 7)'],
    ['labels.?"x".post==present', '[labels. >|?|< "x".post==present]: expected field or quoted (position 7)'],
    ['name==foo,', '[name==foo,]: expected field or quoted (position 10)'],
    ['labels.', '[labels.]: expected field or quoted (position 7)'],
    ['image~=,id?=?fbaq', '[image~= >|,|< id?=?fbaq]: expected value or quoted (position 7)'],
    ['labels.ns/key==value', '[labels.ns >|/|< key==value]: quoted literal not terminated (position 9)'],
    ['labels.key==/value', '[labels.key== >|/|< value]: quoted literal not terminated (position 12)'],
    ['labels."a\nb"', '[labels. >|"|< a\nb"]: quoted literal not terminated (position 7)'],
    ['labels."\\g"', '[labels. >|"|< \\g"]: illegal escape sequence (position 7)'],
    ['labels."\\xaz"', '[labels. >|"|< \\xaz"]: illegal numeric escape sequence (position 7)'],
    ['name=="\\U00110000"', '[name== >|"|< \\U00110000"]: unquoting failed: quote syntax error (position 6)'],
    ['name=foo', '[name >|=|< foo]: unsupported operator "=" (position 4)'],
    ['name==foo bar', '[name==foo >| |< bar]: unexpected input:   (position 9)'],
    ['foo\0bar', '[foo >|\0|< bar]: unexpected null (position 3)'],
    ['name==', '[name==]: expected value or quoted (position 6)'],
    ['name~=(', '[name~= >|(|< ]: invalid regular expression: missing ) (position 6)'],
  ];
  for (const [filter, message] of refusals) {
    it(`${JSON.stringify(filter)} is refused at its position`, () => {
      assert.equal(refusal(filter), `filters: parse error: ${message}`);
    });
  }

  it('are refused when they are too long or too many', () => {
    assert.match(refusal(`name==${'x'.repeat(20_000)}`), /longer/);
    assert.throws(() => parseFilters(new Array(2000).fill('name')), /more than/);
  });

  it('compile, or are refused as INVALID_ARGUMENT: any text at all', () => {
    const piece = fc.constantFrom(
      'name',
      'labels.',
      '"',
      '\\',
      '==',
      '~=',
      '!=',
      ',',
      '/',
      '|',
      ' ',
      '[',
      '(a|b)',
      '\n',
      'é',
    );
    const text = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.array(piece, { maxLength: 12 }).map((parts) => parts.join('')),
    );
    fc.assert(
      fc.property(text, (filter) => {
        try {
          CORPUS.filter(parseFilters([filter]));
        } catch (error) {
          assert.ok(hasCode(error, 'INVALID_ARGUMENT'), `${JSON.stringify(filter)}: ${error}`);
        }
      }),
      { numRuns: 3000 },
    );
  });

  it('find any name and label value that is quoted as Go does', () => {
    const quoted = (text: string): string => `"${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`;
    const text = fc.string({
      unit: fc.constantFrom('a', '"', '\\', '/', '|', '.', ',', '=', ' ', '牛', '\t'),
      minLength: 1,
    });
    fc.assert(
      fc.property(text, text, (key, value) => {
        const found = parseFilters([`name==${quoted(value)},labels.${quoted(key)}==${quoted(value)}`]);
        assert.ok(found(snapshot(value, { [key]: value })));
        assert.ok(!found(snapshot(value, { [`${key}x`]: value })));
      }),
    );
  });
});

describe('regular expressions', () => {
  const cases: readonly (readonly [string, string, boolean])[] = [
    ['^a{2,3}$', 'aaa', true],
    ['^a{2,3}$', 'aaaa', false],
    ['^a{2}$', 'aa', true],
    ['^a{2,}$', 'aaaaa', true],
    ['^a{2,}$', 'a', false],
    ['^a{,2}$', 'a{,2}', true],
    ['^(ab|cd)*$', 'abcdab', true],
    ['^(ab|cd)*$', 'abcda', false],
    ['^(a*)*$', 'aaa', true],
    ['^(a*)+b$', 'aab', true],
    ['(?i)HELLO', 'say hello', true],
    ['(?i:a)b', 'AB', false],
    ['(?P<x>a)b', 'ab', true],
    ['[[:alpha:]]+\\d', 'x9', true],
    ['^[^a-c]$', 'd', true],
    ['^[^a-c]$', 'b', false],
    ['^[\\w.-]+$', 'a.b-c', true],
    ['^[]a]+$', 'a]', true],
    ['[&&--]', '-', true],
    ['\\bfoo\\b', 'a foo b', true],
    ['\\bfoo\\b', 'afoo b', false],
    ['\\Qa.b\\E', 'axb', false],
    ['(?s)^a.b$', 'a\nb', true],
    ['^a.b$', 'a\nb', false],
    ['^b$', 'a\nb', false],
    ['(?m)^b$', 'a\nb', true],
    ['^\\pL+$', 'abcé', true],
    ['\\p{Greek}', 'α', true],
    ['^.$', '😀', true],
    ['\\x{1F600}', '😀', true],
    ['a|b|', 'zzz', true],
    ['^sha256:[0-9a-f]{64}$', `sha256:${'a'.repeat(64)}`, true],
  ];
  for (const [pattern, text, expected] of cases) {
    it(`${pattern} ${expected ? 'occurs' : 'does not occur'} in ${JSON.stringify(text.slice(0, 12))}`, () => {
      assert.equal(compileRegex(pattern)(text), expected);
    });
  }

  it('take time linear in the text, also where backtracking would take forever', () => {
    for (const pattern of ['^(a+)+$', '^(a|a)*$', '^(a|aa)+$', 'a*a*a*a*a*a*b', '^(a?){50}a{50}$']) {
      const began = performance.now();
      assert.equal(compileRegex(pattern)(`${'a'.repeat(4000)}c`), false);
      assert.ok(performance.now() - began < 5_000, pattern);
    }
  });

  it('refuse what Go refuses, and what would be too much', () => {
    const refused = [
      '(?=a)',
      '(?<!a)',
      '\\1',
      'a**',
      '*',
      '(',
      ')',
      '[a',
      '[b-a]',
      '\\',
      '[[:no:]]',
      '\\p{Nope}',
      '\\y',
    ];
    for (const pattern of [
      ...refused,
      'a{1001}',
      'a{2,1}',
      '((a{100}){100}){100}',
      'x'.repeat(2000),
      '('.repeat(200),
    ]) {
      assert.throws(
        () => compileRegex(pattern),
        (error) => error instanceof ShoalError && error.code === 'INVALID_ARGUMENT',
        pattern,
      );
    }
  });

  it('agree with JavaScript where both have the same syntax', () => {
    const atom = fc.constantFrom('a', 'b', '.', '[ab]', '[^a]', '(a|b)', '(ab)', '(a|)', '\\d', '\\w');
    const count = fc.constantFrom('', '*', '+', '?', '{2}', '{1,2}', '*?');
    const pattern = fc
      .array(
        fc.tuple(atom, count).map((pair) => pair.join('')),
        { maxLength: 4 },
      )
      .chain((parts) => fc.constantFrom(parts.join(''), `^${parts.join('')}$`, `x|${parts.join('')}`));
    const text = fc.string({ unit: fc.constantFrom('a', 'b', 'c', '1'), maxLength: 8 });
    fc.assert(
      fc.property(pattern, text, (source, subject) => {
        assert.equal(compileRegex(source)(subject), new RegExp(source).test(subject), `${source} on ${subject}`);
      }),
      { numRuns: 3000 },
    );
  });
});
