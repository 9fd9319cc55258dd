import { readFileSync } from 'node:fs';
import { ShoalError } from '../errors.ts';
import { isMountRoot } from '../kernel/mount-api.ts';

/** One line of mountinfo, unescaped (proc_pid_mountinfo(5)). */
export interface MountEntry {
  readonly id: number;
  readonly parent: number;
  /** `major:minor` of the filesystem. */
  readonly device: string;
  /** The directory of the filesystem that is mounted. */
  readonly root: string;
  readonly target: string;
  /** The directory it was mounted on was removed: the mount cannot be reached by path any more. */
  readonly deleted: boolean;
  readonly options: readonly string[];
  /** `shared:2`, `master:1` …; empty for a private mount. */
  readonly propagation: readonly string[];
  readonly fstype: string;
  readonly source: string;
  readonly superOptions: readonly string[];
}

const DELETED = '//deleted';

/** All mounts of this mount namespace in the kernel's order, or those at and below directory `under` (absolute, resolved). */
export function listMounts(filter: { under?: string } = {}): MountEntry[] {
  const mounts = parseMountInfo(readFileSync('/proc/self/mountinfo', 'utf8'));
  if (filter.under === undefined) return mounts;
  const top = filter.under.replace(/\/+$/, '');
  return mounts.filter(({ target }) => target === top || target.startsWith(`${top}/`));
}

/** True when something is mounted exactly at `path` (absolute, resolved). */
export function isMounted(path: string): boolean {
  return isMountRoot(path) ?? listMounts({ under: path }).some((mount) => mount.target === path && !mount.deleted);
}

/** Parses the text of /proc/<pid>/mountinfo; STATE_CORRUPT on a line that is not one. */
export function parseMountInfo(text: string): MountEntry[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map(parseLine);
}

function parseLine(line: string): MountEntry {
  const fields = line.split(' ');
  const dash = fields.indexOf('-', 6);
  const [id, parent, device, root, target, options] = fields;
  if (dash < 0 || fields.length < dash + 4 || target === undefined) {
    throw new ShoalError('STATE_CORRUPT', `not a line of mountinfo: ${line}`);
  }
  const unescaped = unescapeOctal(target);
  const deleted = unescaped.endsWith(DELETED);
  return {
    id: Number(id),
    parent: Number(parent),
    device: device as string,
    root: unescapeOctal(root as string),
    target: deleted ? unescaped.slice(0, -DELETED.length) : unescaped,
    deleted,
    options: (options as string).split(','),
    propagation: fields.slice(6, dash),
    fstype: unescapeOctal(fields[dash + 1] as string),
    source: unescapeOctal(fields[dash + 2] as string),
    superOptions: (fields[dash + 3] as string).split(',').map(unescapeOctal),
  };
}

// The kernel writes space, tab, newline, backslash and # as \ooo; all are below 128, so this is safe after UTF-8 decoding.
function unescapeOctal(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}
