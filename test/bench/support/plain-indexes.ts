import { cp, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { startShoal } from '../../lab/shoal.ts';

/**
 * Lets a daemon of its own read the plain layers of these images whole, and keeps the indexes it makes in `folder`: there
 * they are as below a daemon's root. `work` is for its own state, which goes.
 */
export async function makeIndexes(init: {
  folder: string;
  work: string;
  config: string;
  references: readonly string[];
  program?: readonly string[];
}): Promise<void> {
  const { config, folder, program, references, work } = init;
  const shoal = await startShoal({ dir: work, config, ...(program === undefined ? {} : { program }) });
  try {
    for (const [index, reference] of references.entries()) {
      const directory = join(work, `mnt${index}`);
      await mkdir(directory);
      await shoal.post('/v1/mounts', { reference, directory });
    }
    await cp(join(shoal.root, 'indexes'), folder, { recursive: true });
  } finally {
    await shoal.stop();
    await rm(work, { recursive: true, force: true });
  }
}

/** Gives a daemon that is to start in `dir` the indexes in `folder`. */
export async function giveIndexes(folder: string, dir: string): Promise<void> {
  await mkdir(join(dir, 'root'), { recursive: true, mode: 0o700 });
  await cp(folder, join(dir, 'root/indexes'), { recursive: true });
}
