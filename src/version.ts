import { readFileSync } from 'node:fs';

/** shoal's own version, from package.json. */
export const VERSION: string = JSON.parse(readFileSync(new URL(packageFile(), import.meta.url), 'utf8')).version;

/** Seen from src/ of a checkout, or from dist/src/ of a build. */
function packageFile(): string {
  return import.meta.url.endsWith('.ts') ? '../package.json' : '../../package.json';
}
