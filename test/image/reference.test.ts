import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { hasCode, ShoalError } from '../../src/errors.ts';
import { formatReference, parseReference } from '../../src/image/reference.ts';

const DIGEST = `sha256:${'0123456789abcdef'.repeat(4)}`;

test('names are completed as Docker completes them', () => {
  const cases: [string, string][] = [
    ['python', 'docker.io/library/python:latest'],
    ['python:3.12', 'docker.io/library/python:3.12'],
    ['user/app', 'docker.io/user/app:latest'],
    ['docker.io/python', 'docker.io/library/python:latest'],
    ['index.docker.io/python', 'docker.io/library/python:latest'],
    ['localhost/x', 'localhost/x:latest'],
    ['localhost:5000/x', 'localhost:5000/x:latest'],
    ['127.0.0.1:5000/a/b:tag', '127.0.0.1:5000/a/b:tag'],
    ['[::1]:5000/x', '[::1]:5000/x:latest'],
    ['[fd00::2]/x/y:1', '[fd00::2]/x/y:1'],
    ['HOST.example/x', 'host.example/x:latest'],
    [`host.example/x@${DIGEST}`, `host.example/x@${DIGEST}`],
    [`host.example:8443/x:tag@${DIGEST}`, `host.example:8443/x:tag@${DIGEST}`],
    ['a.b/c__d/e-f--g.h', 'a.b/c__d/e-f--g.h:latest'],
    ['python:5000', 'docker.io/library/python:5000'],
  ];
  for (const [text, full] of cases) {
    assert.equal(formatReference(parseReference(text)), full);
    assert.deepEqual(parseReference(full), parseReference(text));
  }
});

test('a name that is wrong is refused with the reason', () => {
  const cases: [unknown, RegExp][] = [
    [undefined, /undefined/],
    ['', /empty/],
    ['https://host.example/x', /leave out "https:\/\/"/],
    ['a'.repeat(2000), /longer/],
    [`a.b/${'c'.repeat(255)}`, /longer/],
    ['Python', /lower case/],
    ['host.example/A', /lower case/],
    ['User/app', /lower case/],
    ['host.example/', /missing/],
    ['host.example//x', /empty part/],
    ['host.example/x/', /empty part/],
    ['host.example/../x', /not a repository name/],
    ['host.example/x_', /not a repository name/],
    ['host.example/x y', /not a repository name/],
    ['host.example/x\0', /not a repository name/],
    ['x:', /not a tag/],
    [`x:${'t'.repeat(129)}`, /not a tag/],
    ['x:-a', /not a tag/],
    ['x@sha256:abc', /not a digest/],
    ['x@md5:d41d8cd98f00b204e9800998ecf8427e', /not a digest/],
    ['host.example:0/x', /out of range/],
    ['host.example:65536/x', /out of range/],
    ['-host.example/x', /not a host name/],
    ['user@host.example/x', /not a digest/],
    ['127.1:5000/x', /not a host name/],
    ['0x7f.0.0.1/x', /not a host name/],
    ['2130706433.:5000/x', /not a host name/],
    ['[::g]/x', /not a host name/],
    ['a'.repeat(64), /image id/],
  ];
  for (const [text, why] of cases) {
    assert.throws(
      () => parseReference(text),
      (error) => hasCode(error, 'INVALID_REFERENCE') && why.test(error.message),
      String(text).slice(0, 60),
    );
  }
});

test('whatever is parsed, formats and parses to the same, and nothing else is ever thrown', () => {
  const pieces = fc.constantFrom(
    'a',
    'B',
    '1',
    '.',
    ':',
    '/',
    '@',
    '-',
    '_',
    '[',
    ']',
    'localhost',
    DIGEST,
    '5000',
    '..',
  );
  const text = fc.oneof(
    fc.string(),
    fc.array(pieces, { maxLength: 12 }).map((parts) => parts.join('')),
  );
  fc.assert(
    fc.property(text, (input) => {
      try {
        const reference = parseReference(input);
        assert.deepEqual(parseReference(formatReference(reference)), reference);
        assert.ok(!/\.\.\/|\0|%/.test(reference.repository));
      } catch (error) {
        assert.ok(error instanceof ShoalError && error.code === 'INVALID_REFERENCE', String(error));
      }
    }),
    { numRuns: 2000 },
  );
});
