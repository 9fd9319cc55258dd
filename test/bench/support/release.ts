import { fileURLToPath } from 'node:url';
import { run } from '../../lab/process.ts';

/** The launcher, which runs what `npm run build` made. */
const LAUNCHER = fileURLToPath(new URL('../../../bin/shoal', import.meta.url));
const ROOT = fileURLToPath(new URL('../../..', import.meta.url));

/** Builds the release and gives the command line that starts it. */
export async function buildRelease(): Promise<readonly string[]> {
  await run(process.execPath, ['scripts/build.ts'], { cwd: ROOT });
  return [LAUNCHER];
}

/** The middle of an odd number of samples, the upper one of the two else. */
export function median(samples: readonly number[]): number {
  return samples.toSorted((a, b) => a - b)[Math.floor(samples.length / 2)] as number;
}
