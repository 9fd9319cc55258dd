/** How the rest of an image is fetched. */
export interface BackgroundPolicy {
  readonly enabled: boolean;
  /** 0: no limit. */
  readonly bytesPerSecond: number;
  /** The pattern of the rule it comes from, empty for the default: what shares a rule shares its rate. */
  readonly group: string;
}

/** What differs for images whose name matches a pattern. */
export interface BackgroundRule {
  /** An image name (`registry/repository:tag`); `*` stands for any characters. */
  readonly pattern: string;
  readonly enabled?: boolean | undefined;
  readonly bytesPerSecond?: number | undefined;
}

/**
 * The policy for a layer of these images: each goes by the longest pattern that matches it, else by the default. A layer
 * of several images is fetched when one of them wants that, at the highest of their rates.
 */
export function backgroundPolicy(
  images: readonly string[],
  init: { fallback: Omit<BackgroundPolicy, 'group'>; rules: readonly BackgroundRule[] },
): BackgroundPolicy {
  const { fallback, rules } = init;
  const longestFirst = rules.toSorted((a, b) => b.pattern.length - a.pattern.length);
  const policies = images.map((image): BackgroundPolicy => {
    const rule = longestFirst.find(({ pattern }) => matchesPattern(pattern, image));
    return {
      enabled: rule?.enabled ?? fallback.enabled,
      bytesPerSecond: rule?.bytesPerSecond ?? fallback.bytesPerSecond,
      group: rule?.bytesPerSecond === undefined ? '' : rule.pattern,
    };
  });
  const rate = ({ bytesPerSecond }: BackgroundPolicy): number => bytesPerSecond || Number.POSITIVE_INFINITY;
  const fastestFirst = policies.filter(({ enabled }) => enabled).toSorted((a, b) => rate(b) - rate(a));
  if (policies.length === 0) return { ...fallback, group: '' };
  return fastestFirst[0] ?? { ...fallback, enabled: false, group: '' };
}

/** `*` stands for any characters. Compares piece by piece: many stars cost no more than the pattern's length times the name's. */
export function matchesPattern(pattern: string, name: string): boolean {
  const [head = '', ...rest] = pattern.split('*');
  if (rest.length === 0) return pattern === name;
  const tail = rest.pop() as string;
  if (!name.startsWith(head)) return false;
  let at = head.length;
  for (const part of rest) {
    const found = name.indexOf(part, at);
    if (found === -1) return false;
    at = found + part.length;
  }
  return name.length - tail.length >= at && name.endsWith(tail);
}
