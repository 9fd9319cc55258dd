import { lookup as systemLookup } from 'node:dns';
import { isIP, type LookupFunction } from 'node:net';
import { ShoalError } from '../errors.ts';
import { type AddressClass, classifyAddress } from './address.ts';
import { sameRegistrableDomain } from './registrable-domain.ts';

declare const approvedBrand: unique symbol;

/** A URL that may be requested; only the policy makes one, and the transport takes nothing else. */
export interface ApprovedUrl {
  readonly [approvedBrand]: true;
  readonly url: URL;
  /** The image's registry on whose behalf it is requested. */
  readonly registry: string;
  /** Addresses it may resolve to; the connection is made to an address that was checked against it. */
  readonly reach: Reach;
  /** True when the registry's credentials may go there: scheme, host and port are the registry's own. */
  readonly credentials: boolean;
  /** Redirects that led here. */
  readonly hops: number;
}

/** Which classes of address are allowed. */
export type Reach = 'public' | 'public+private' | 'public+loopback' | 'public+private+loopback';

/** What the operator says of one registry, by host (`host[:port]`, `docker.io`). */
export interface RegistryRules {
  /** Speak http; default: only with registries on loopback. */
  readonly plainHttp?: boolean;
  /** The registry may be at a private or loopback address, and redirect to private ones. Default: public ones only. */
  readonly allowPrivate?: boolean;
  /** Other hosts that may be asked for tokens, as `host[:port]`. */
  readonly tokenHosts?: readonly string[];
}

/** Header names the policy lets out; there is no way to send another one. */
export interface RequestHeaders {
  readonly accept?: string;
  readonly range?: string;
  readonly authorization?: string;
  readonly contentType?: string;
}

/** The only place that decides which URL may be requested with which headers and credentials (docs: security). */
export interface UrlPolicy {
  /** `path` of a registry's API (`/v2/…`). Throws URL_REFUSED for a registry nobody configured or may ask for. */
  registry(registry: string, path: string): ApprovedUrl;
  /** The target of a redirect that `from` answered with. Throws URL_REFUSED. */
  redirect(from: ApprovedUrl, location: string): ApprovedUrl;
  /** The token endpoint a registry's challenge names. Throws AUTH_REFUSED naming the host. */
  token(registry: string, realm: string): ApprovedUrl;
  /** Header list (name, value, …) for a request; Authorization only where credentials may go. */
  headers(target: ApprovedUrl, headers: RequestHeaders): string[];
  /** Resolver for connections: yields only addresses within reach, fails with URL_REFUSED when none is. */
  lookup(reach: Reach): LookupFunction;
}

/** Tuning of the policy. */
export interface UrlPolicyInit {
  readonly registries?: Readonly<Record<string, RegistryRules>>;
  /** Refuse registries that are not listed in `registries`. Default false: those that were asked for will do. */
  readonly onlyConfigured?: boolean;
  /** Tells the registries of images that were asked for. Default: whoever makes the policy vouches for all. */
  readonly isAsked?: (registry: string) => boolean;
  /** Sent as User-Agent. */
  readonly userAgent?: string;
  /** Name resolution; default: the system's. */
  readonly lookup?: LookupFunction;
}

/** Redirects followed for one request: a registry, its mirror, its object store, and two to spare. */
export const MAX_REDIRECTS = 5;
const MAX_URL_LENGTH = 8192;
/** Docker Hub is the one registry whose API is not at its name. */
const API_HOSTS: Readonly<Record<string, string>> = { 'docker.io': 'registry-1.docker.io' };
const TOKEN_HOSTS: Readonly<Record<string, readonly string[]>> = { 'docker.io': ['auth.docker.io'] };

/** The URL policy of a configuration. */
export function createUrlPolicy(init: UrlPolicyInit = {}): UrlPolicy {
  return new Policy(init);
}

class Policy implements UrlPolicy {
  readonly #registries: ReadonlyMap<string, RegistryRules>;
  readonly #onlyConfigured: boolean;
  readonly #isAsked: (registry: string) => boolean;
  readonly #userAgent: string;
  readonly #lookup: LookupFunction;

  constructor(init: UrlPolicyInit) {
    this.#registries = new Map(
      Object.entries(init.registries ?? {}).map(([host, rules]) => [host.toLowerCase(), rules]),
    );
    this.#onlyConfigured = init.onlyConfigured ?? false;
    this.#isAsked = init.isAsked ?? (() => true);
    this.#userAgent = init.userAgent ?? 'shoal';
    this.#lookup = init.lookup ?? (systemLookup as LookupFunction);
  }

  registry(registry: string, path: string): ApprovedUrl {
    this.#checkAllowed(registry);
    const base = this.#origin(registry);
    const url = parseUrl(`${base}${path}`);
    if (url.origin !== base || !url.pathname.startsWith('/v2/')) {
      throw new ShoalError('URL_REFUSED', `${JSON.stringify(path.slice(0, 100))} is not a path of a registry's API`);
    }
    const reach = this.#ownReach(registry);
    checkLiteral(url, reach);
    return approve({ url, registry, reach, credentials: true, hops: 0 });
  }

  redirect(from: ApprovedUrl, location: string): ApprovedUrl {
    const { registry } = from;
    const hops = from.hops + 1;
    if (hops > MAX_REDIRECTS) {
      throw new ShoalError('URL_REFUSED', `registry ${registry} redirects more than ${MAX_REDIRECTS} times`);
    }
    const url = parseUrl(location, from.url);
    if (from.url.protocol === 'https:' && url.protocol === 'http:') {
      throw new ShoalError('URL_REFUSED', `registry ${registry} redirects from https to http://${url.host}`);
    }
    const own = url.origin === this.#origin(registry);
    const reach = own ? this.#ownReach(registry) : this.#redirectReach(registry);
    if (url.protocol === 'http:' && !own && !this.#mayBePlain(url, reach)) {
      throw new ShoalError(
        'URL_REFUSED',
        `registry ${registry} redirects to http://${url.host}, which is not loopback`,
      );
    }
    checkLiteral(url, reach);
    return approve({ url, registry, reach, credentials: own && from.credentials, hops });
  }

  token(registry: string, realm: string): ApprovedUrl {
    let url: URL;
    try {
      url = parseUrl(realm);
    } catch (cause) {
      throw authRefused(registry, `names a token server that is refused: ${(cause as Error).message}`, cause);
    }
    const origin = new URL(this.#origin(registry));
    const reach = this.#ownReach(registry);
    const plainLoopback = origin.protocol === 'http:' && isLoopbackHost(origin.hostname);
    if (url.protocol === 'http:' && !(plainLoopback && isLoopbackHost(url.hostname))) {
      throw authRefused(registry, `names a token server over plain http: ${url.host}`);
    }
    const listed = [...(TOKEN_HOSTS[registry] ?? []), ...(this.#registries.get(registry)?.tokenHosts ?? [])];
    const sameHost = url.hostname === origin.hostname;
    const literal = isIP(bareHost(url)) !== 0;
    const known =
      sameHost || listed.includes(url.host) || (!literal && sameRegistrableDomain(url.hostname, origin.hostname));
    if (!known) {
      throw authRefused(registry, `names the token server ${url.host}, which is neither its own domain nor configured`);
    }
    try {
      checkLiteral(url, reach);
    } catch (cause) {
      throw authRefused(registry, `names the token server ${url.host}, whose address is refused`, cause);
    }
    return approve({ url, registry, reach, credentials: true, hops: MAX_REDIRECTS });
  }

  headers(target: ApprovedUrl, headers: RequestHeaders): string[] {
    const list = ['user-agent', this.#userAgent, 'accept-encoding', 'identity'];
    if (headers.accept !== undefined) list.push('accept', headers.accept);
    if (headers.range !== undefined) list.push('range', headers.range);
    if (headers.contentType !== undefined) list.push('content-type', headers.contentType);
    if (headers.authorization !== undefined && target.credentials) list.push('authorization', headers.authorization);
    return list;
  }

  lookup(reach: Reach): LookupFunction {
    return (hostname, options, callback) => {
      this.#lookup(hostname, { ...options, all: true }, (error, addresses) => {
        if (error !== null) {
          callback(error, '');
          return;
        }
        const all = Array.isArray(addresses) ? addresses : [{ address: addresses, family: isIP(addresses) }];
        const allowed = all.filter(({ address }) => within(reach, classifyAddress(address)));
        const first = allowed[0];
        if (first === undefined) callback(refusedAddress(hostname, all[0]?.address ?? 'nothing'), '');
        else if (options.all === true) callback(null, allowed);
        else callback(null, first.address, first.family);
      });
    };
  }

  #checkAllowed(registry: string): void {
    if (this.#registries.has(registry)) return;
    if (this.#onlyConfigured) {
      const why = `registry ${registry} is not configured, and only configured ones may be asked`;
      throw new ShoalError('URL_REFUSED', why);
    }
    if (this.#isAsked(registry)) return;
    throw new ShoalError('URL_REFUSED', `no image of registry ${registry} was asked for`);
  }

  /** `https://host[:port]` where the registry's API is. */
  #origin(registry: string): string {
    const host = API_HOSTS[registry] ?? registry;
    const url = parseUrl(`https://${host}/`);
    const plain = this.#registries.get(registry)?.plainHttp ?? (isLoopbackHost(url.hostname) && url.port !== '');
    return plain ? parseUrl(`http://${host}/`).origin : url.origin;
  }

  #ownReach(registry: string): Reach {
    if (this.#registries.get(registry)?.allowPrivate === true) return 'public+private+loopback';
    return literalReach(registry);
  }

  #redirectReach(registry: string): Reach {
    const reach = literalReach(registry);
    if (this.#registries.get(registry)?.allowPrivate !== true) return reach;
    return reach === 'public+loopback' ? 'public+private+loopback' : 'public+private';
  }

  /** http to another host: between loopback hosts, or to a host the operator marked so. */
  #mayBePlain(url: URL, reach: Reach): boolean {
    if (isLoopbackHost(url.hostname)) return within(reach, 'loopback');
    return this.#registries.get(url.host)?.plainHttp === true;
  }
}

/** What a registry may reach by virtue of its own name alone. */
function literalReach(registry: string): Reach {
  const url = parseUrl(`https://${registry}/`);
  if (isLoopbackHost(url.hostname)) return 'public+loopback';
  return isIP(bareHost(url)) !== 0 && classifyAddress(bareHost(url)) === 'private' ? 'public+private' : 'public';
}

function within(reach: Reach, address: AddressClass): boolean {
  return address !== 'forbidden' && reach.split('+').includes(address);
}

/** Literal addresses are connected to without a lookup, so they are checked here. */
function checkLiteral(url: URL, reach: Reach): void {
  const host = bareHost(url);
  if (isIP(host) !== 0 && !within(reach, classifyAddress(host))) throw refusedAddress(url.host, host);
  if (isLoopbackHost(url.hostname) && !within(reach, 'loopback')) throw refusedAddress(url.host, host);
}

function refusedAddress(host: string, address: string): ShoalError {
  const kind = classifyAddress(address);
  const advice =
    kind === 'private' || kind === 'loopback' ? '; set allow_private for the registry if that is meant' : '';
  const about = host === address ? `is a ${kind} address` : `resolves to ${address}, a ${kind} address`;
  return new ShoalError('URL_REFUSED', `${host} ${about}${advice}`);
}

function isLoopbackHost(hostname: string): boolean {
  const name = hostname.replace(/\.$/, '');
  if (name === 'localhost' || name.endsWith('.localhost')) return true;
  const bare = name.replace(/^\[|\]$/g, '');
  return isIP(bare) !== 0 && classifyAddress(bare) === 'loopback';
}

function bareHost(url: URL): string {
  return url.hostname.replace(/^\[|\]$/g, '');
}

/** Only http(s) without user name; the fragment is dropped. */
function parseUrl(text: string, base?: URL): URL {
  const url = text.length > MAX_URL_LENGTH ? null : URL.parse(text, base?.href);
  if (url === null) throw new ShoalError('URL_REFUSED', 'not a URL, or too long');
  if (url.protocol !== 'https:' && url.protocol !== 'http:') {
    throw new ShoalError('URL_REFUSED', `scheme ${url.protocol.slice(0, 20)} is not https: or http:`);
  }
  if (url.username !== '' || url.password !== '') {
    throw new ShoalError('URL_REFUSED', `URL with a user name for ${url.host}`);
  }
  if (url.port === '0') throw new ShoalError('URL_REFUSED', `port 0 of ${url.hostname}`);
  url.hash = '';
  return url;
}

function authRefused(registry: string, why: string, cause?: unknown): ShoalError {
  return new ShoalError('AUTH_REFUSED', `registry ${registry} ${why}`, { cause });
}

/**
 * A URL of a mirror that the operator configured: it may be at any address but a forbidden one, and never gets the
 * registry's credentials. `from`: the mirror redirects there; to another host only over https and to a public address.
 */
export function approveMirror(registry: string, text: string, from?: ApprovedUrl): ApprovedUrl {
  const url = parseUrl(text, from?.url);
  const hops = from === undefined ? 0 : from.hops + 1;
  if (hops > MAX_REDIRECTS) {
    throw new ShoalError('URL_REFUSED', `the mirror of ${registry} redirects more than ${MAX_REDIRECTS} times`);
  }
  const own = from === undefined || url.origin === from.url.origin;
  if (!own && url.protocol !== 'https:') {
    throw new ShoalError('URL_REFUSED', `the mirror of ${registry} redirects to http://${url.host}`);
  }
  const reach = own ? (from?.reach ?? 'public+private+loopback') : 'public';
  checkLiteral(url, reach);
  return approve({ url, registry, reach, credentials: false, hops });
}

function approve(fields: Omit<ApprovedUrl, typeof approvedBrand>): ApprovedUrl {
  return Object.freeze(fields) as ApprovedUrl;
}
