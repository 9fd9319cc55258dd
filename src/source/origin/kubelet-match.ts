/**
 * True when an image (`host[:port]/repository`) matches a pattern as kubelet reads `matchImages` and the keys of pull
 * secrets (pkg/credentialprovider, URLsMatchStr): ports are equal, hosts have as many dot-separated parts and match part
 * by part (`*`, `?`), and the pattern's path is a prefix of the image's.
 */
export function matchesImage(pattern: string, image: string): boolean {
  const wanted = split(pattern);
  const given = split(image);
  if (wanted === undefined || given === undefined) return false;
  return (
    wanted.port === given.port &&
    wanted.labels.length === given.labels.length &&
    given.path.startsWith(wanted.path) &&
    wanted.labels.every((label, index) => matchesGlob(label, given.labels[index] as string))
  );
}

/** A key of a pull secret (`https://host/v1/`, `*.host/path`) as a pattern: no scheme, no `/v1/` or `/v2/`. */
export function patternOfKey(key: string): string {
  const [, host = '', path = ''] = /^(?:https?:\/\/)?([^/]*)(.*)$/s.exec(key) ?? [];
  const rest = path.replace(/^\/v[12](?=\/)/, '');
  return rest === '/' ? host : `${host}${rest}`;
}

/** Keys that match, in kubelet's order: the longer, more special ones first. */
export function matchingKeys(keys: readonly string[], image: string): string[] {
  const patterns = keys.map((key) => ({ key, pattern: patternOfKey(key) }));
  const found = patterns.filter(({ pattern }) => matchesImage(pattern, image));
  found.sort((a, b) => (a.pattern < b.pattern ? 1 : a.pattern > b.pattern ? -1 : 0));
  const hub = image.startsWith('docker.io/') ? patterns.filter(({ pattern }) => pattern === 'index.docker.io') : [];
  return [...found, ...hub].map(({ key }) => key);
}

const MAX_PATTERN_LENGTH = 1024;

function split(text: string): { labels: string[]; port: string; path: string } | undefined {
  if (text.length > MAX_PATTERN_LENGTH) return undefined;
  const [, host = '', port = '', path = ''] = /^(\[[^\]]*\]|[^/:]*)(?::(\d+))?(\/.*)?$/s.exec(text) ?? [];
  return host === '' ? undefined : { labels: host.toLowerCase().split('.'), port, path };
}

/** `*` is any run of characters, `?` any one; linear in practice, quadratic at worst. */
function matchesGlob(glob: string, text: string): boolean {
  let at = 0;
  let from = 0;
  let star = -1;
  let retry = 0;
  while (from < text.length) {
    if (glob[at] === '*') {
      star = at;
      at += 1;
      retry = from;
    } else if (at < glob.length && (glob[at] === '?' || glob[at] === text[from])) {
      at += 1;
      from += 1;
    } else if (star >= 0) {
      at = star + 1;
      retry += 1;
      from = retry;
    } else return false;
  }
  while (glob[at] === '*') at += 1;
  return at === glob.length;
}
