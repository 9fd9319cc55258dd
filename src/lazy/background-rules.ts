import type { Config } from '../config.ts';
import type { BackgroundPolicy, BackgroundRule } from '../core/policy/background.ts';

/** How images are fetched in the background, as the configuration has it. */
export function backgroundRules({ fetch, image }: Pick<Config, 'fetch' | 'image'>): {
  readonly fallback: Omit<BackgroundPolicy, 'group'>;
  readonly rules: readonly BackgroundRule[];
} {
  const rules = Object.entries(image).map(([pattern, { background, backgroundBytesPerSecond }]) => ({
    pattern,
    enabled: background,
    bytesPerSecond: backgroundBytesPerSecond,
  }));
  return { fallback: { enabled: fetch.background, bytesPerSecond: fetch.backgroundBytesPerSecond }, rules };
}
