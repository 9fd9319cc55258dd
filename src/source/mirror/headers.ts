/** Names a hosts.toml may not set: credentials, what steers the connection, and what makes Dragonfly write files. */
const REFUSED =
  /^(authorization|proxy-.*|cookie|set-cookie|host|connection|keep-alive|transfer-encoding|te|trailer|upgrade|content-.*|range|if-.*|accept-encoding|expect|forwarded|x-forwarded-.*|x-real-ip|x-dragonfly-output-path|x-dragonfly-force-hard-link)$/;
const TOKEN = /^[a-z0-9!#$%&'*+.^_`|~-]{1,128}$/;
// Visible ASCII, spaces within.
const VALUE = /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/;

/** Why a header of a hosts.toml is not sent; undefined when it is. `name` in lower case. */
export function whyRefused(name: string, value: string): string | undefined {
  if (!TOKEN.test(name)) return 'is not a header name';
  if (REFUSED.test(name)) return 'is never sent to a mirror';
  return VALUE.test(value) ? undefined : 'has a value that is not printable ASCII';
}

/** What Dragonfly is told with each request for a blob. */
export interface DragonflyRequest {
  readonly urgency: 'demand' | 'prefetch';
  /** Upstream with its scheme; undefined in proxy mode, where the URL says it. */
  readonly registry: string | undefined;
  readonly prefetch: boolean;
  readonly tag: string;
  readonly application: string;
}

/**
 * Dragonfly's request headers as name, value, … (reference: anchors-mission 2.2, 2.3). Priority 6: a seed peer may fetch
 * from the registry; 3: this node does it, so that background work does not load the seeds.
 */
export function dragonflyHeaders(request: DragonflyRequest): [name: string, value: string][] {
  const list: [string, string][] = [
    ['x-dragonfly-use-p2p', 'true'],
    ['x-dragonfly-prefetch', String(request.prefetch)],
    ['x-dragonfly-priority', request.urgency === 'prefetch' ? '3' : '6'],
    ['x-dragonfly-enable-task-id-based-blob-digest', 'true'],
  ];
  if (request.registry !== undefined) list.unshift(['x-dragonfly-registry', request.registry]);
  if (request.tag !== '') list.push(['x-dragonfly-tag', request.tag]);
  if (request.application !== '') list.push(['x-dragonfly-application', request.application]);
  return list;
}
