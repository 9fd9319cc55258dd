import assert from 'node:assert/strict';
import { readFileSync, realpathSync } from 'node:fs';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { programNeeds } from '../../src/image/elf.ts';
import { findInTree } from '../../src/image/find-file.ts';
import { parseStartCommand } from '../../src/image/image-config.ts';
import { byteString, emptyDir, type FileNode, type LayerTree, type TreeNode } from '../../src/image/layer-tree.ts';

const META = { mode: 0o755, uid: 0, gid: 0, mtimeSec: 0, mtimeNsec: 0 };
const file = (): FileNode => ({ kind: 'file', ...META, size: 1, extents: [] });
const link = (target: string): TreeNode => ({ kind: 'symlink', ...META, target: byteString(target) });

function dir(children: Record<string, TreeNode>): TreeNode {
  return emptyDir({
    ...META,
    children: new Map(Object.entries(children).map(([name, node]) => [byteString(name), node])),
  } as object);
}

describe('what a container starts with', () => {
  test('the loader and libraries of this very Node.js are found in its ELF file', () => {
    const needs = programNeeds(readFileSync('/bin/sh'));
    assert.match(needs?.interpreter ?? '', /^\/lib(64)?\/ld-/);
    assert.ok(needs?.names.includes('libc.so.6'));
    assert.ok(['x86_64-linux-gnu', 'aarch64-linux-gnu'].includes(needs?.libraryFolder ?? ''));
    const library = programNeeds(readFileSync(realpathSync(`/lib/${needs?.libraryFolder}/libm.so.6`)));
    assert.ok(library?.names.includes('libc.so.6'));
  });

  test('a script names its interpreter, and what env is to look up', () => {
    assert.deepEqual(programNeeds(Buffer.from('#!/bin/sh -e\necho')), {
      interpreter: '/bin/sh',
      names: [],
      searchPath: [],
    });
    const viaEnv = programNeeds(Buffer.from('#! /usr/bin/env -S A=1 node --flag\n'));
    assert.deepEqual([viaEnv?.interpreter, viaEnv?.names], ['/usr/bin/env', ['node']]);
  });

  test('any other file needs nothing, and a mutilated ELF file never throws', () => {
    assert.equal(programNeeds(new Uint8Array(0)), undefined);
    const real = readFileSync('/bin/sh');
    const places = fc.array(fc.tuple(fc.nat({ max: 0x400 }), fc.nat({ max: 255 })), { maxLength: 16 });
    fc.assert(
      fc.property(places, fc.nat({ max: real.byteLength }), (changes, length) => {
        const bytes = Uint8Array.from(real.subarray(0, length));
        for (const [at, value] of changes) if (at < length) bytes[at] = value;
        const needs = programNeeds(bytes);
        assert.ok(needs === undefined || needs.names.length <= 1024);
      }),
      { numRuns: 300 },
    );
  });

  test('paths are followed through links, and never out of the tree', () => {
    const python = file();
    const root = dir({
      usr: dir({ bin: dir({ python3: link('python3.11'), 'python3.11': python }), loop: link('loop') }),
      bin: link('usr/bin'),
      up: link('../../../../usr/bin/python3'),
      absolute: link('/bin/python3'),
    });
    const tree = { root } as LayerTree;
    for (const path of ['/usr/bin/python3', '/bin/python3', '/up', '/absolute', '//bin/.././bin/python3.11']) {
      assert.equal(findInTree(tree, path), python, path);
    }
    for (const path of ['/usr/loop', '/bin/python3/x', '/nothing', '/bin/nothing']) {
      assert.equal(findInTree(tree, path), undefined, path);
    }
  });

  test('the command comes from Entrypoint and Cmd, with the PATH of the config', () => {
    const of = (config: unknown) => parseStartCommand(Buffer.from(JSON.stringify({ config })));
    assert.deepEqual(of({ Entrypoint: ['entry.sh'], Cmd: ['node', 'x.js'], Env: ['PATH=/a:/b:rel'] }), {
      programs: ['entry.sh', 'node'],
      path: ['/a', '/b'],
    });
    assert.deepEqual(of({ Cmd: 'node', Entrypoint: [1], Env: {} }).programs, []);
    assert.ok(of(undefined).path.includes('/usr/bin'));
    assert.throws(() => parseStartCommand(Buffer.from('[]')), { code: 'INVALID_MANIFEST' });
  });
});
