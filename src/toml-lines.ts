import { parse } from 'smol-toml';

/** Finds the line (from 1) on which a TOML text sets the key at a path; undefined when it can't be told. */
export type LineFinder = (path: readonly string[]) => number | undefined;

/** Line (from 1) on which the TOML `text` sets the key at `path`; undefined when it can't be told. */
export function lineOfKey(text: string, path: readonly string[]): number | undefined {
  return createLineFinder(text)(path);
}

/** A finder for many keys of one text: looks at each line once. */
export function createLineFinder(text: string): LineFinder {
  let keys: readonly { readonly full: readonly string[]; readonly line: number }[] | undefined;
  return (path) => {
    keys ??= [...keysOf(text)];
    return keys.find(({ full }) => full.length >= path.length && path.every((part, at) => full[at] === part))?.line;
  };
}

function* keysOf(text: string): Generator<{ full: readonly string[]; line: number }> {
  let table: readonly string[] = [];
  for (const [index, line] of text.split('\n').entries()) {
    const header = /^\s*\[([^[\]"]*(?:"[^"]*"[^[\]"]*)*)\]\s*(?:#.*)?$/.exec(line)?.[1];
    const key = header ?? /^\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=/.exec(line)?.[1];
    if (key === undefined) continue;
    const parts = keyParts(key);
    const full: readonly string[] = header === undefined ? [...table, ...parts] : parts;
    if (header !== undefined) table = full;
    yield { full, line: index + 1 };
  }
}

/** The parts of a dotted TOML key, quotes taken off; none when it is not a key. */
function keyParts(key: string): string[] {
  const parts: string[] = [];
  try {
    let node: unknown = parse(`${key} = 1`);
    while (typeof node === 'object' && node !== null) {
      const [part, child] = Object.entries(node)[0] as [string, unknown];
      parts.push(part);
      node = child;
    }
  } catch {
    return [];
  }
  return parts;
}
