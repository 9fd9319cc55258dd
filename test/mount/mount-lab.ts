import { execFile, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readlinkSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { writeErofs } from '../../src/erofs/writer.ts';
import { byteString, emptyDir, type FileNode } from '../../src/image/layer-tree.ts';
import { closeRaw, syscallRaw } from '../../src/kernel/libc.ts';
import { openFilesystem } from '../../src/kernel/mount-api.ts';
import { listMounts } from '../../src/mount/table.ts';

const BLOCK = 4096;
const MNT_DETACH = 2;

/** Why a test that mounts `fstype` cannot run here, or false. */
export function cannotMount(...fstypes: string[]): string | false {
  for (const fstype of fstypes) {
    try {
      closeRaw(openFilesystem(fstype));
    } catch (error) {
      return `cannot mount ${fstype}: ${error instanceof Error ? error.message : error}`;
    }
  }
  return false;
}

/** Why a test that runs `program` cannot run here, or false. */
export function cannotRun(program: string): string | false {
  return spawnSync(program, ['--help']).error === undefined ? false : `${program} is not installed`;
}

/** A temporary directory on a disk filesystem; disposing takes down what is still mounted below it and removes it. */
export class Lab {
  readonly path = realpathSync(mkdtempSync(join(tmpdir(), 'shoal-mount-')));

  at(...names: string[]): string {
    return join(this.path, ...names);
  }

  dir(...names: string[]): string {
    const path = this.at(...names);
    mkdirSync(path, { recursive: true });
    return path;
  }

  file(name: string, bytes: Uint8Array | string): string {
    const path = this.at(name);
    writeFileSync(path, bytes);
    return path;
  }

  [Symbol.dispose](): void {
    for (const { target } of listMounts({ under: this.path }).reverse()) syscallRaw('umount2', target, MNT_DETACH);
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** An image on disk: `files` f0, f1 … each of two blocks, file i on device i. */
export interface LabImage {
  readonly image: string;
  readonly devices: readonly string[];
  readonly contents: readonly Buffer[];
}

/** Writes an image with `count` devices, named below `folder` (made when absent). */
export function writeImage(folder: string, count: number): LabImage {
  mkdirSync(folder, { recursive: true });
  const root = emptyDir();
  const contents = Array.from({ length: count }, () => randomBytes(2 * BLOCK));
  const devices = contents.map((bytes, device) => {
    const path = join(folder, `device-${device}`);
    writeFileSync(path, bytes);
    const extents = [{ fileOffset: 0, length: bytes.byteLength, device, deviceOffset: 0 }];
    const meta = { mode: 0o4755, uid: 0, gid: 0, mtimeSec: 0, mtimeNsec: 0 };
    const file: FileNode = { kind: 'file', size: bytes.byteLength, extents, ...meta };
    root.children.set(byteString(`f${device}`), file);
    return path;
  });
  const image = join(folder, 'image');
  const table = contents.map((_, device) => ({ tag: `device ${device}`, blocks: 2 }));
  writeFileSync(image, writeErofs({ root }, { devices: table }));
  return { image, devices, contents };
}

/** Reads a file in a process of its own. */
export async function readElsewhere(path: string): Promise<Buffer> {
  const { stdout } = await promisify(execFile)('cat', [path], { encoding: 'buffer', timeout: 20_000 });
  return stdout;
}

/** What this process's descriptors point to, kernel objects without names and the test runner's own apart. */
export function openFiles(): string[] {
  return (
    readdirSync('/proc/self/fd')
      .map((fd) => {
        try {
          return readlinkSync(`/proc/self/fd/${fd}`);
        } catch {
          return '';
        }
      })
      .filter((target) => target.startsWith('/') || target.startsWith('anon_inode:[fscontext]'))
      // the reporter of `npm test` opens its file a moment after the first test began
      .filter((target) => !target.endsWith('/events'))
      .sort()
  );
}

/** Waits until `condition` holds, at most 5 s; false when it never did. */
export async function eventually(condition: () => boolean): Promise<boolean> {
  for (let attempt = 0; attempt < 250; attempt += 1) {
    if (condition()) return true;
    await sleep(20);
  }
  return condition();
}
