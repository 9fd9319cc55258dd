import { readFileSync, statSync } from 'node:fs';
import { open, rename } from 'node:fs/promises';

/** Replaces the file in one step, mode 0600: after a crash it is the old one or the new one. */
export async function writeAtomically(path: string, bytes: Uint8Array | string): Promise<void> {
  const next = `${path}.new`;
  const file = await open(next, 'w', 0o600);
  try {
    await file.writeFile(bytes);
    await file.datasync();
  } finally {
    await file.close();
  }
  await rename(next, path);
}

/** The JSON in the file; undefined when it is missing, larger than `most` bytes, or no JSON: such state is only a help. */
export function readJson(path: string, most: number): unknown {
  try {
    return statSync(path).size > most ? undefined : JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    return undefined;
  }
}
