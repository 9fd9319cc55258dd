/** Import direction as docs/design.md has it; `node scripts/check-imports.ts` prints every violation and fails on any. */
import { globSync, readFileSync } from 'node:fs';
import { posix } from 'node:path';

/** One import that goes the wrong way. */
export interface ImportViolation {
  readonly file: string;
  readonly line: number;
  readonly message: string;
}

/**
 * The layers of src/, lowest first. A unit imports from its own row and from rows below.
 * `apart` rows hold units that never import each other.
 */
const ROWS: readonly { units: readonly string[]; apart?: true }[] = [
  { units: ['errors', 'clock', 'log', 'metrics', 'unix-socket', 'toml-lines', 'version', 'gen'] },
  { units: ['core'] },
  { units: ['store', 'kernel'] },
  { units: ['mount', 'image', 'erofs'] },
  { units: ['snapshot', 'trap', 'source'], apart: true },
  { units: ['control', 'snapshot/grpc', 'cri', 'config'], apart: true },
  { units: ['lazy'] },
  { units: ['top'] },
];

/** All of src/ the simulator may see: that is what "it runs the daemon's own policy" means. */
const SIMULATOR_MAY_IMPORT = new Set(['core', 'store', 'clock', 'errors', 'toml-lines']);

/** The one file of the simulator that a command may import. */
const SIMULATOR_FACE = 'sim/index.ts';

/** Packages that only these units may import: calls into C are in few places. */
const PACKAGE_OWNERS: Readonly<Record<string, readonly string[]>> = {
  koffi: ['kernel', 'trap'],
  'fuse-native': ['trap'],
};

/** Files at the top of src/ that are units of their own; every other file there is a composition root. */
const ROOT_UNITS: Readonly<Record<string, string>> = {
  'errors.ts': 'errors',
  'clock.ts': 'clock',
  'log.ts': 'log',
  'metrics.ts': 'metrics',
  'unix-socket.ts': 'unix-socket',
  'toml-lines.ts': 'toml-lines',
  'toml-document.ts': 'toml-lines',
  'version.ts': 'version',
  'config.ts': 'config',
  'config-schema.ts': 'config',
  'config-text.ts': 'config',
};

const IMPORT = /(?:\bfrom\s+|\bimport\s*\(\s*|^\s*import\s+)(['"])([^'"]+)\1/gm;

/** The unit a file of src/ belongs to: `core`, `snapshot/grpc`, `top` …; throws when its folder is in no row. */
export function unitOf(file: string): string {
  const inner = file.slice('src/'.length);
  const folder = inner.split('/')[0] as string;
  if (!inner.includes('/')) return ROOT_UNITS[inner] ?? 'top';
  if (folder === 'cli') return 'top';
  if (/^snapshot\/grpc[./]/.test(inner)) return 'snapshot/grpc';
  if (!ROWS.some((row) => row.units.includes(folder))) throw new Error(`${file}: src/${folder} is in no import layer`);
  return folder;
}

/** Every import in `files` (path from the repository root → source text) that breaks a rule. */
export function findViolations(files: ReadonlyMap<string, string>): ImportViolation[] {
  const found: ImportViolation[] = [];
  for (const [file, text] of files) {
    const source = text.replace(/\/\*[\s\S]*?\*\//g, (comment) => comment.replace(/[^\n]/g, ' '));
    for (const match of source.matchAll(IMPORT)) {
      const message = judge(file, match[2] as string);
      if (message === undefined) continue;
      found.push({ file, line: source.slice(0, match.index).split('\n').length, message });
    }
  }
  return found;
}

function judge(file: string, specifier: string): string | undefined {
  try {
    return judgeImport(file, specifier);
  } catch (error) {
    return (error as Error).message;
  }
}

function judgeImport(file: string, specifier: string): string | undefined {
  if (!specifier.startsWith('.')) return judgePackage(file, specifier);
  const target = posix.normalize(posix.join(posix.dirname(file), specifier));
  const from = file.split('/')[0];
  const isSource = target.startsWith('src/');
  if (from === 'src' && file.startsWith('src/cli/') && target === SIMULATOR_FACE) return undefined;
  if (from === 'src') return isSource ? judgeLayers(unitOf(file), unitOf(target)) : `src must not import ${target}`;
  if (from === 'sim' && isSource && !SIMULATOR_MAY_IMPORT.has(unitOf(target))) {
    return `sim must not import ${unitOf(target)}`;
  }
  return undefined;
}

function judgePackage(file: string, specifier: string): string | undefined {
  const owners = PACKAGE_OWNERS[specifier];
  if (owners === undefined || !file.startsWith('src/') || owners.includes(unitOf(file))) return undefined;
  return `only ${owners.join(' and ')} may import ${specifier}`;
}

function judgeLayers(from: string, to: string): string | undefined {
  if (from === to) return undefined;
  const fromRow = rowOf(from);
  const toRow = rowOf(to);
  if (toRow > fromRow) return `${from} must not import ${to}, which is a layer above`;
  if (toRow === fromRow && ROWS[fromRow]?.apart === true) return `${from} and ${to} must not import each other`;
  return undefined;
}

function rowOf(unit: string): number {
  return ROWS.findIndex((row) => row.units.includes(unit));
}

if (import.meta.main) {
  const files = new Map<string, string>();
  for (const file of globSync('{src,sim}/**/*.ts')) files.set(file, readFileSync(file, 'utf8'));
  const violations = findViolations(files);
  for (const { file, line, message } of violations) process.stdout.write(`${file}:${line}: ${message}\n`);
  process.exitCode = violations.length === 0 ? 0 : 1;
}
