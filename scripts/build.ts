/** `npm run build`: plain JavaScript in dist/, for installing shoal as a package (Node strips no types in node_modules). */
import { spawnSync } from 'node:child_process';
import { copyFileSync, rmSync } from 'node:fs';

rmSync('dist', { recursive: true, force: true });
const tsc = spawnSync('node_modules/.bin/tsc', ['-p', 'tsconfig.build.json'], { stdio: 'inherit' });
process.exitCode = tsc.status ?? 1;
// What the report of `shoal sim` is made of and no compiler touches.
for (const file of ['page.js', 'page.css']) copyFileSync(`sim/report/${file}`, `dist/sim/report/${file}`);
