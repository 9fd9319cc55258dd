/** `npm run format`: writes the one format, and the lint fixes that are safe, into the files that need it. */
import { spawnSync } from 'node:child_process';

const paths = process.argv.slice(2);
const biome = spawnSync('node_modules/.bin/biome', ['check', '--write', ...paths], { stdio: 'inherit' });
process.exitCode = biome.status ?? 1;
