import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLogger } from '../src/log.ts';

function lineOf(json: boolean, fields: Record<string, string>): string {
  const lines: string[] = [];
  createLogger({ level: 'info', json, write: (line) => lines.push(line) }).info('pulled', fields);
  return lines.join('');
}

test('a value from outside neither ends its line nor reaches the terminal as a control sequence', () => {
  const hostile = 'a\nerror faked\r\u001b[2J\u009b2J\u2028"=\u007f';
  const plain = lineOf(false, { image: hostile });
  assert.match(plain, /^\S+ info {2}pulled image="a\\nerror faked\\r\\u001b\[2J\\u009b2J\\u2028\\"=\\u007f"\n$/);
  assert.equal(lineOf(false, { blob: '\u001b[31m' }).includes('\u001b'), false);
  assert.equal(JSON.parse(lineOf(true, { image: hostile })).image, hostile);
});

test('values without anything special stay as they are', () => {
  assert.match(
    lineOf(false, { image: 'docker.io/library/python:3', why: 'two words' }),
    /image=docker\.io\/library\/python:3 why="two words"\n$/,
  );
});
