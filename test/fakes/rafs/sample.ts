import { type RafsEntry, TYPE } from './entries.ts';

/** Bytes that look random, the same for the same seed. */
export function noise(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length);
  let state = seed | 1;
  for (let at = 0; at < length; at += 1) {
    state = Math.imul(state, 1103515245) + 12345;
    bytes[at] = state >>> 16;
  }
  return bytes;
}

/** Half noise, half text. */
export function mixed(length: number, seed: number): Buffer {
  return Buffer.concat([noise(length >> 1, seed), Buffer.alloc(length - (length >> 1), `text ${seed} `)]);
}

/** Entries of every type, with data in two blobs: the same chunk twice, files over several chunks, hard links, xattrs. */
export function sampleEntries(): RafsEntry[] {
  const tool = {
    mode: TYPE.file | 0o4755,
    content: mixed(3_000_001, 1),
    inode: 'tool',
    xattrs: new Map([
      ['security.capability', Buffer.from('0100000200040000000000000000000000000000', 'hex')],
      ['user.binary', Buffer.from([0, 255, 10])],
    ]),
    mtimeSec: -86_400,
  };
  const entries: RafsEntry[] = [
    { path: '', mode: TYPE.dir | 0o755 },
    { path: 'bin', mode: TYPE.dir | 0o750, uid: 1, gid: 2, mtimeSec: 1_700_000_000, mtimeNsec: 5 },
    { path: 'bin/tool', ...tool },
    { path: 'bin/again', ...tool },
    { path: 'bin/link', mode: TYPE.symlink | 0o777, target: '../etc/passwd' },
    { path: 'dev', mode: TYPE.dir | 0o755 },
    { path: 'dev/null', mode: TYPE.char | 0o666, rdev: 0x103 },
    { path: 'dev/pipe', mode: TYPE.fifo | 0o600 },
    { path: 'etc', mode: TYPE.dir | 0o1777, xattrs: new Map([['user.dir', Buffer.from('here')]]) },
    { path: 'etc/empty', mode: TYPE.file | 0o600, content: new Uint8Array() },
    { path: 'etc/caf\xe9\n', mode: TYPE.file | 0o644, content: Buffer.from('latin1 name'), blob: 1 },
    { path: `etc/${'n'.repeat(255)}`, mode: TYPE.file | 0o644, content: noise(4096, 7), blob: 1 },
    { path: 'etc/noise', mode: TYPE.file | 0o644, content: noise(300_000, 3), blob: 1, uid: 100_000, gid: 4_000_000 },
    { path: 'etc/same', mode: TYPE.file | 0o644, content: noise(4096, 7), blob: 1 },
    { path: 'etc/tail', mode: TYPE.file | 0o644, content: Buffer.concat([noise(4096, 7), mixed(5000, 9)]), blob: 1 },
    { path: 'many', mode: TYPE.dir | 0o755 },
  ];
  for (let index = 0; index < 400; index += 1) {
    const path = `many/file-${String(index).padStart(3, '0')}-${'x'.repeat(index % 40)}`;
    entries.push({ path, mode: TYPE.file | 0o644, content: mixed(10 + index * 7, index), blob: index % 2 });
  }
  return entries;
}
