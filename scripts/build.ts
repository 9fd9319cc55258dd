/** `npm run build`: plain JavaScript in dist/, for installing shoal as a package (Node strips no types in node_modules). */
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';

rmSync('dist', { recursive: true, force: true });
const tsc = spawnSync('node_modules/.bin/tsc', ['-p', 'tsconfig.build.json'], { stdio: 'inherit' });
process.exitCode = tsc.status ?? 1;
