import { chmod, mkdir, readdir } from 'node:fs/promises';
import { Level } from 'level';
import { ShoalError, withContext } from '../errors.ts';

/** Makes the root, or takes an empty folder as it; one that holds something must be private already (checked later). */
export async function makeRoot(root: string): Promise<void> {
  await mkdir(root, { recursive: true, mode: 0o700 });
  if ((await readdir(root)).length === 0) await chmod(root, 0o700);
}

/** Opens the state's database. Throws FAILED_PRECONDITION when another daemon has it, STATE_CORRUPT when it is beyond use. */
export async function openDatabase(path: string): Promise<Level<string, string>> {
  const db = new Level<string, string>(path);
  try {
    await db.open();
    return db;
  } catch (error) {
    const locked = (error as { cause?: { code?: string } }).cause?.code === 'LEVEL_LOCKED';
    if (locked) throw new ShoalError('FAILED_PRECONDITION', `another shoal daemon uses ${path}`, { cause: error });
    throw withContext(error, {}, 'STATE_CORRUPT');
  }
}
