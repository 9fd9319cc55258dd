import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { ShoalError } from '../../src/errors.ts';
import {
  type ByteString,
  byteString,
  byteStringOf,
  type DirNode,
  emptyDir,
  type FileNode,
  type LayerTree,
  type SymlinkNode,
  type TreeNode,
} from '../../src/image/layer-tree.ts';
import { createTreeBuilder, type TreeBuilder } from '../../src/image/tree-builder.ts';

const META = { mode: 0o644, uid: 0, gid: 0, mtimeSec: 0, mtimeNsec: 0 };

function path(text: string): ByteString {
  return byteString(text);
}

function file(size = 0, meta: Partial<FileNode> = {}): FileNode {
  return { ...META, kind: 'file', size, extents: [], ...meta };
}

function symlink(target: string): SymlinkNode {
  return { ...META, kind: 'symlink', target: path(target) };
}

function built(fill: (builder: TreeBuilder) => void): LayerTree {
  const builder = createTreeBuilder();
  fill(builder);
  return builder.build();
}

function at(tree: LayerTree, where: string): TreeNode | undefined {
  let node: TreeNode | undefined = tree.root;
  for (const part of where.split('/')) node = node?.kind === 'dir' ? node.children.get(path(part)) : undefined;
  return node;
}

function names(tree: LayerTree, where?: string): string[] {
  return [...((where === undefined ? tree.root : at(tree, where)) as DirNode).children.keys()].sort();
}

/** Refused with INVALID_LAYER and a message that has `says` and stays printable. */
function refused(says: RegExp, fill: (builder: TreeBuilder) => void): void {
  assert.throws(
    () => built(fill),
    (error: unknown) => {
      assert.ok(error instanceof ShoalError, String(error));
      assert.equal(error.code, 'INVALID_LAYER');
      assert.match(error.message, says);
      assert.match(error.message, /^[ -~…]*$/);
      return true;
    },
  );
}

describe('paths', () => {
  test('a leading slash, "./", doubled and trailing slashes mean nothing', () => {
    const tree = built((builder) => {
      for (const name of ['/a', './b', 'c//d', 'e/./f', './/g']) builder.add(path(name), file());
      builder.add(path('./h/'), emptyDir());
    });
    assert.deepEqual(names(tree), ['a', 'b', 'c', 'e', 'g', 'h']);
    assert.deepEqual(names(tree, 'c'), ['d']);
    assert.deepEqual(names(tree, 'e'), ['f']);
  });

  test('the root takes the attributes of its entry, whatever it is called', () => {
    for (const name of ['./', '/', '.']) {
      const tree = built((builder) => builder.add(path(name), emptyDir({ mode: 0o700, uid: 7 })));
      assert.equal(tree.root.mode, 0o700);
      assert.equal(tree.root.uid, 7);
    }
  });

  test('nothing climbs, hides in a NUL, or is longer than Linux allows', () => {
    refused(/"\.\."/, (builder) => builder.add(path('../etc/passwd'), file()));
    refused(/"\.\."/, (builder) => builder.add(path('a/../../b'), file()));
    refused(/"\.\."/, (builder) => builder.add(path('a/..'), emptyDir()));
    refused(/"\.\."/, (builder) => builder.addHardLink(path('..'), path('a')));
    refused(/entry "a\\x00b" has a NUL/, (builder) => builder.add(path('a\0b'), file()));
    refused(/empty name/, (builder) => builder.add(path(''), file()));
    refused(/longer than 255/, (builder) => builder.add(path('n'.repeat(256)), file()));
    refused(/longer than 4096/, (builder) => builder.add(path(`${'d/'.repeat(2048)}x`), file()));
    refused(/deeper than 1024/, (builder) => builder.add(path(`${'d/'.repeat(1024)}x`), file()));
    refused(/root something else/, (builder) => builder.add(path('./'), file()));
    const tree = built((builder) => {
      builder.add(path('n'.repeat(255)), file());
      builder.add(path(`${'d/'.repeat(1023)}x`), file());
    });
    assert.deepEqual(names(tree), ['d', 'n'.repeat(255)]);
  });

  test('names are bytes: those that are not UTF-8 stay what they were', () => {
    const name = byteStringOf(new Uint8Array([0x63, 0xe9, 0xff, 0x0a]));
    const tree = built((builder) => builder.add(name, file()));
    assert.deepEqual([...tree.root.children.keys()], [name]);
  });
});

describe('entries', () => {
  test('parents that nobody named are 0755 root:root until someone does', () => {
    const before = built((builder) => builder.add(path('a/b/c'), file()));
    assert.deepEqual({ ...(at(before, 'a') as DirNode), children: 0 }, { ...emptyDir(), children: 0, implied: true });
    const after = built((builder) => {
      builder.add(path('a/b/c'), file());
      builder.add(path('a'), emptyDir({ mode: 0o1777, gid: 5 }));
    });
    assert.equal((at(after, 'a') as DirNode).mode, 0o1777);
    assert.equal((at(after, 'a') as DirNode).implied, undefined);
    assert.equal(at(after, 'a/b/c')?.kind, 'file');
  });

  test('a later entry replaces an earlier one; a directory over a directory keeps the children', () => {
    const tree = built((builder) => {
      builder.add(path('x'), file(1));
      builder.add(path('x'), file(2));
      builder.add(path('dir'), emptyDir());
      builder.add(path('dir/old'), file());
      builder.add(path('dir'), emptyDir({ mode: 0o711, xattrs: new Map([[path('user.a'), Buffer.from('1')]]) }));
      builder.add(path('turned'), emptyDir());
      builder.add(path('turned/gone'), file());
      builder.add(path('turned'), symlink('x'));
      builder.add(path('back'), symlink('x'));
      builder.add(path('back'), emptyDir());
      builder.add(path('back/child'), file());
    });
    assert.equal((at(tree, 'x') as FileNode).size, 2);
    assert.equal((at(tree, 'dir') as DirNode).mode, 0o711);
    assert.equal((at(tree, 'dir') as DirNode).xattrs?.size, 1);
    assert.deepEqual(names(tree, 'dir'), ['old']);
    assert.equal(at(tree, 'turned')?.kind, 'symlink');
    assert.deepEqual(names(tree, 'back'), ['child']);
  });

  test('nothing lies below a file or a symlink', () => {
    refused(/not a directory but a file/, (builder) => {
      builder.add(path('a'), file());
      builder.add(path('a/b'), file());
    });
    refused(/not a directory but a symlink/, (builder) => {
      builder.add(path('etc'), symlink('/host/etc'));
      builder.add(path('etc/passwd'), file());
    });
  });

  test('a directory that was replaced takes no more entries, also when it held the last one', () => {
    for (const [gone, next] of [
      ['a/b', 'a/b/y'],
      ['a', 'a/b/y'],
    ] as const) {
      refused(/not a directory/, (builder) => {
        builder.add(path('a/b/x'), file());
        builder.add(path(gone), file());
        builder.add(path(next), file());
      });
    }
    const tree = built((builder) => {
      builder.add(path('a/b/x'), file());
      builder.add(path('a'), symlink('c'));
      builder.add(path('a'), emptyDir());
      builder.add(path('a/b/y'), file());
    });
    assert.deepEqual(names(tree, 'a/b'), ['y']);
  });

  test('fields that Linux cannot hold are refused', () => {
    for (const bad of [
      { size: 2 ** 53 },
      { size: -1 },
      { size: 1.5 },
      { size: Number.NaN },
      { mode: 0o10000 },
      { mode: -1 },
      { uid: 2 ** 32 },
      { gid: -1 },
      { mtimeSec: Number.POSITIVE_INFINITY },
      { mtimeNsec: 1e9 },
    ]) {
      refused(/^entry "f" has /, (builder) => builder.add(path('f'), file(0, bad)));
    }
    refused(/is device 4096:0/, (builder) => {
      builder.add(path('d'), { ...META, kind: 'char', major: 4096, minor: 0 });
    });
  });

  test('symlinks have 1 to 4095 bytes and no NUL', () => {
    refused(/longer than 4095/, (builder) => builder.add(path('l'), symlink('t'.repeat(4096))));
    refused(/symlink to nothing/, (builder) => builder.add(path('l'), symlink('')));
    refused(/symlink with a NUL/, (builder) => builder.add(path('l'), symlink('a\0')));
    const tree = built((builder) => builder.add(path('l'), symlink('../'.repeat(1365))));
    assert.equal((at(tree, 'l') as SymlinkNode).target.length, 4095);
  });

  test('more entries than allowed are TOO_LARGE, parents included', () => {
    const builder = createTreeBuilder({ maxEntries: 3 });
    assert.throws(() => builder.add(path('a/b/c/d'), file()), { code: 'TOO_LARGE' });
  });

  test('the landmarks of eStargz are hidden at the root, not below', () => {
    const tree = built((builder) => {
      for (const name of ['.prefetch.landmark', '.no.prefetch.landmark', 'stargz.index.json']) {
        builder.add(path(name), file(1));
        builder.add(path(`./${name}`), file(1));
        builder.add(path(`a/${name}`), file(1));
      }
    });
    assert.deepEqual(names(tree), ['a']);
    assert.equal(names(tree, 'a').length, 3);
  });
});

describe('xattrs', () => {
  const withXattr = (name: string, value: Uint8Array): FileNode => {
    return file(0, { xattrs: new Map([[path(name), value]]) });
  };

  test('what a mounted layer should not show is dropped, the rest kept', () => {
    const kept = [
      'security.capability',
      'user.x',
      'user.overlay.y',
      'trusted.z',
      'system.posix_acl_access',
      'security.ima',
    ];
    const dropped = [
      'security.selinux',
      'trusted.overlay.opaque',
      'trusted.overlay.redirect',
      'com.apple.x',
      'user.',
      '',
    ];
    const tree = built((builder) => {
      const xattrs = new Map([...kept, ...dropped].map((name) => [path(name), Buffer.from([1])]));
      builder.add(path('f'), file(0, { xattrs }));
      builder.add(path('none'), withXattr('security.selinux', Buffer.from([1])));
    });
    assert.deepEqual([...((at(tree, 'f') as FileNode).xattrs?.keys() ?? [])], kept);
    assert.equal((at(tree, 'none') as FileNode).xattrs, undefined);
  });

  test('names over 255 bytes, values over 64 KiB and too many are refused', () => {
    refused(/xattr with a bad name/, (builder) =>
      builder.add(path('f'), withXattr(`user.${'n'.repeat(251)}`, Buffer.of())),
    );
    refused(/xattr with a bad name/, (builder) => builder.add(path('f'), withXattr('user.a\0', Buffer.of())));
    refused(/xattr of 65536 bytes/, (builder) => builder.add(path('f'), withXattr('user.a', Buffer.alloc(65536))));
    refused(/more than 131072 bytes of xattrs/, (builder) => {
      const xattrs = new Map([1, 2, 3].map((n) => [path(`user.${n}`), Buffer.alloc(50_000)]));
      builder.add(path('f'), file(0, { xattrs }));
    });
  });
});

describe('hard links', () => {
  test('links share the inode, also through a target that comes later and through other links', () => {
    const tree = built((builder) => {
      builder.addHardLink(path('z'), path('y'));
      builder.addHardLink(path('y'), path('./x'));
      builder.add(path('x'), file(3));
      builder.addHardLink(path('d/w'), path('/z'));
    });
    for (const name of ['y', 'z', 'd/w']) assert.equal(at(tree, name), at(tree, 'x'));
  });

  test('a link keeps the inode that was there when it was made', () => {
    const tree = built((builder) => {
      builder.add(path('a'), file(1));
      builder.addHardLink(path('b'), path('a'));
      builder.add(path('a'), file(2));
    });
    assert.equal((at(tree, 'b') as FileNode).size, 1);
  });

  test('a chain of 200,000 links ends', () => {
    const count = 200_000;
    const tree = built((builder) => {
      for (let n = count; n > 0; n -= 1) builder.addHardLink(path(`l${n}`), path(`l${n - 1}`));
      builder.add(path('l0'), file());
    });
    assert.equal(at(tree, `l${count}`), at(tree, 'l0'));
  });

  test('links to a directory, out of the layer, to nothing, through a symlink, or in a circle are refused', () => {
    refused(/hard link to a directory/, (builder) => {
      builder.add(path('d'), emptyDir());
      builder.addHardLink(path('l'), path('d'));
    });
    refused(/hard link to a directory/, (builder) => {
      builder.addHardLink(path('l'), path('d'));
      builder.add(path('d/f'), file());
    });
    refused(/hard link to a directory/, (builder) => builder.addHardLink(path('l'), path('/')));
    refused(/bad place: .*"\.\."/, (builder) => builder.addHardLink(path('l'), path('../../etc/shadow')));
    refused(/bad place/, (builder) => builder.addHardLink(path('l'), path('')));
    refused(/not in the layer/, (builder) => builder.addHardLink(path('l'), path('/etc/shadow')));
    refused(/not in the layer/, (builder) => {
      builder.add(path('s'), symlink('/'));
      builder.addHardLink(path('l'), path('s/etc/shadow'));
    });
    refused(/cycle/, (builder) => builder.addHardLink(path('l'), path('l')));
    refused(/cycle/, (builder) => {
      builder.addHardLink(path('a'), path('b'));
      builder.addHardLink(path('b'), path('c'));
      builder.addHardLink(path('c'), path('a'));
    });
    refused(/root a hard link/, (builder) => builder.addHardLink(path('/'), path('a')));
  });
});

describe('whiteouts', () => {
  test('.wh. names become whiteouts, .wh..wh..opq an opaque directory, other .wh..wh. names nothing', () => {
    const tree = built((builder) => {
      builder.add(path('./a/.wh.gone'), file());
      builder.add(path('b/.wh..wh..opq'), file());
      builder.add(path('.wh..wh.plnk'), emptyDir());
      builder.add(path('.wh..wh.plnk/1.2'), file());
      builder.addHardLink(path('.wh..wh.aufs'), path('nowhere'));
      builder.addWhiteout(path('c/gone'));
    });
    assert.deepEqual(names(tree), ['a', 'b', 'c']);
    assert.equal(at(tree, 'a/gone')?.kind, 'whiteout');
    assert.equal(at(tree, 'c/gone')?.kind, 'whiteout');
    assert.equal((at(tree, 'b') as DirNode).opaque, true);
    assert.equal((at(tree, 'a') as DirNode).opaque, false);
  });

  test('a whiteout never hides what its own layer brings, before or after it', () => {
    const entries: ((builder: TreeBuilder) => void)[] = [
      (builder) => builder.add(path('f'), file(1)),
      (builder) => builder.add(path('.wh.f'), file()),
      (builder) => builder.add(path('.wh.d'), file()),
      (builder) => builder.add(path('d/new'), file(2)),
    ];
    for (const order of [entries, [...entries].reverse()]) {
      const tree = built((builder) => {
        for (const entry of order) entry(builder);
      });
      assert.equal((at(tree, 'f') as FileNode).size, 1);
      // Of the directory below, nothing may show through.
      assert.equal((at(tree, 'd') as DirNode).opaque, true);
      assert.deepEqual(names(tree, 'd'), ['new']);
    }
  });

  test('whiteouts of nothing and entries below one are refused', () => {
    for (const name of ['.wh.', '.wh..', '.wh...', 'a/.wh.']) {
      refused(/whiteout of nothing/, (builder) => builder.add(path(name), file()));
    }
    refused(/below a whiteout/, (builder) => builder.add(path('.wh.a/b'), file()));
    refused(/hides the root/, (builder) => builder.addWhiteout(path('/')));
  });
});

test('any sequence of entries gives a tree of clean names, or a ShoalError', () => {
  const name = fc.oneof(
    fc.constantFrom('a', 'b', '..', '.', '', '.wh.a', '.wh..wh..opq', '.wh.', 'x\0', 'é', 'n'.repeat(256)),
    fc.string({ maxLength: 4 }),
  );
  const where = fc.array(name, { maxLength: 4 }).map((parts) => path(parts.join('/')));
  const step = fc.tuple(fc.constantFrom('dir', 'file', 'symlink', 'link', 'whiteout'), where, where);
  fc.assert(
    fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
      const builder = createTreeBuilder();
      try {
        for (const [kind, one, other] of steps) {
          if (kind === 'dir') builder.add(one, emptyDir());
          else if (kind === 'file') builder.add(one, file());
          else if (kind === 'symlink') builder.add(one, { ...META, kind, target: other });
          else if (kind === 'link') builder.addHardLink(one, other);
          else builder.addWhiteout(one);
        }
        checkClean(builder.build().root);
      } catch (error) {
        assert.ok(error instanceof ShoalError, String(error));
      }
    }),
    { numRuns: 3000 },
  );
});

const KINDS = new Set(['file', 'dir', 'symlink', 'whiteout']);

function checkClean(dir: DirNode): void {
  for (const [name, child] of dir.children) {
    assert.ok(name !== '' && name !== '.' && name !== '..' && name.length <= 255, name);
    assert.ok(!/[/\0]/.test(name) && !name.startsWith('.wh.'), name);
    assert.ok(KINDS.has(child.kind), child.kind);
    if (child.kind === 'dir') checkClean(child);
  }
}
