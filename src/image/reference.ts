import { type Digest, parseDigest } from '../core/digest.ts';
import { ShoalError } from '../errors.ts';

declare const referenceBrand: unique symbol;

/** An image name in canonical form; only `parseReference` makes one. At least one of `tag` and `digest` is set. */
export interface Reference {
  readonly [referenceBrand]: true;
  /** Host, with port when one was given: `docker.io`, `localhost:5000`, `[::1]:5000`. Lower case. */
  readonly registry: string;
  /** Path below the host, as in the registry's API: `library/python`. */
  readonly repository: string;
  readonly tag?: string;
  readonly digest?: Digest;
}

const MAX_TEXT = 1024;
/** Longest host/repository, as the distribution project limits it. */
const MAX_NAME = 255;
const DEFAULT_REGISTRY = 'docker.io';

const HOST_NAME = /^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*$/;
const HOST_IPV6 = /^\[[0-9a-f:.]{2,45}\]$/;
const COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const TAG = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;

/**
 * Parses an image name as Docker and nerdctl write it (distribution/reference grammar): `python`, `user/app:1`,
 * `localhost:5000/x`, `host/x:tag@sha256:…`. A bare name is docker.io's, one without tag and digest is `latest`.
 * Throws INVALID_REFERENCE that says what is wrong.
 */
export function parseReference(text: unknown): Reference {
  if (typeof text !== 'string') throw new ShoalError('INVALID_REFERENCE', `image reference is a ${typeof text}`);
  if (text === '') throw refuse(text, 'it is empty');
  if (text.length > MAX_TEXT) throw refuse(text, `it is longer than ${MAX_TEXT} characters`);
  const scheme = /^[a-z]+:\/\//i.exec(text)?.[0];
  if (scheme !== undefined) throw refuse(text, `leave out "${scheme}"`);
  if (/^[0-9a-f]{64}$/.test(text)) throw refuse(text, 'it is an image id, not a name');

  const { rest, digest } = splitDigest(text);
  const { name, tag } = splitTag(text, rest);
  const { host, path } = splitHost(name);
  const registry = parseHost(text, host);
  const repository = registry === DEFAULT_REGISTRY && !path.includes('/') ? `library/${path}` : path;
  checkPath(text, path);
  if (registry.length + 1 + repository.length > MAX_NAME) {
    throw refuse(text, `host and repository are longer than ${MAX_NAME} characters`);
  }
  const reference = {
    registry,
    repository,
    ...(tag !== undefined ? { tag } : digest === undefined ? { tag: 'latest' } : {}),
    ...(digest === undefined ? {} : { digest }),
  };
  return reference as Reference;
}

/** The reference in full: `docker.io/library/python:3.12`, `host/x:tag@sha256:…`; parses back to the same. */
export function formatReference(reference: Reference): string {
  const tag = reference.tag === undefined ? '' : `:${reference.tag}`;
  const digest = reference.digest === undefined ? '' : `@${reference.digest}`;
  return `${reference.registry}/${reference.repository}${tag}${digest}`;
}

function splitDigest(text: string): { rest: string; digest?: Digest } {
  const at = text.indexOf('@');
  if (at < 0) return { rest: text };
  try {
    return { rest: text.slice(0, at), digest: parseDigest(text.slice(at + 1)) };
  } catch (cause) {
    throw refuse(text, 'what follows "@" is not a digest such as sha256:<64 lower-case hex digits>', cause);
  }
}

/** The tag starts at the last colon, unless a slash follows: then that colon belongs to the port. */
function splitTag(text: string, rest: string): { name: string; tag?: string } {
  const colon = rest.lastIndexOf(':');
  if (colon < 0 || rest.includes('/', colon)) return { name: rest };
  const tag = rest.slice(colon + 1);
  if (!TAG.test(tag)) {
    throw refuse(text, `${JSON.stringify(tag)} is not a tag (1 to 128 letters, digits, "_", "." and "-")`);
  }
  return { name: rest.slice(0, colon), tag };
}

/** Docker's rule: what precedes the first slash is a host when it looks like one, else part of a docker.io name. */
function splitHost(name: string): { host: string; path: string } {
  const slash = name.indexOf('/');
  const first = name.slice(0, Math.max(0, slash));
  const isHost = slash >= 0 && (/[.:]/.test(first) || first.toLowerCase() === 'localhost');
  return isHost ? { host: first, path: name.slice(slash + 1) } : { host: DEFAULT_REGISTRY, path: name };
}

function parseHost(text: string, host: string): string {
  const match = /^(\[[^\]]*\]|[^:]*)(?::(\d{1,5}))?$/.exec(host.toLowerCase());
  const name = match?.[1] ?? '';
  const port = match?.[2];
  if (match === null || !(HOST_NAME.test(name) || HOST_IPV6.test(name)) || !isUrlHost(name)) {
    throw refuse(text, `${JSON.stringify(host)} is not a host name`);
  }
  if (port !== undefined && (Number(port) < 1 || Number(port) > 65535))
    throw refuse(text, `port ${port} is out of range`);
  if ((name === 'index.docker.io' || name === DEFAULT_REGISTRY) && port === undefined) return DEFAULT_REGISTRY;
  return port === undefined ? name : `${name}:${Number(port)}`;
}

/** A URL parser would read `127.1` or `0x7f.1` as another host than it says; only names that stay the same are let in. */
function isUrlHost(name: string): boolean {
  const url = URL.parse(`https://${name}/`);
  return url !== null && (url.hostname === name || name.startsWith('['));
}

function checkPath(text: string, path: string): void {
  if (path === '') throw refuse(text, 'the repository name is missing');
  for (const component of path.split('/')) {
    if (component === '') throw refuse(text, 'the repository name has an empty part');
    if (component !== component.toLowerCase()) throw refuse(text, 'the repository name must be lower case');
    if (!COMPONENT.test(component)) {
      throw refuse(text, `${JSON.stringify(component)} is not a repository name (a-z, 0-9, and ".", "_", "-" between)`);
    }
  }
}

function refuse(text: string, why: string, cause?: unknown): ShoalError {
  return new ShoalError('INVALID_REFERENCE', `image reference ${JSON.stringify(text.slice(0, 120))}: ${why}`, {
    cause,
  });
}
