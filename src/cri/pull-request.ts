import { parseReference, type Reference } from '../image/reference.ts';
import { basicCredential, type Credential, canonicalHost } from '../source/origin/credentials.ts';
import { decodeAuth } from '../source/origin/docker-config.ts';
import { Secret } from '../source/origin/secret.ts';
import { wireFields } from './wire.ts';

/** What a PullImage says: the image, and with which credential it may be pulled. */
export interface Pull {
  readonly reference: Reference;
  readonly credential: Credential;
}

/** Field numbers of the CRI, the same in runtime.v1 and v1alpha2 (kubernetes/cri-api, api.proto). */
const PULL_IMAGE_REQUEST = { image: 1, auth: 2 } as const;
const IMAGE_SPEC = { image: 1 } as const;
const AUTH_CONFIG = {
  username: 1,
  password: 2,
  auth: 3,
  serverAddress: 4,
  identityToken: 5,
  registryToken: 6,
} as const;

/**
 * Reads a PullImageRequest; undefined when it has no credential, or one for another server than the image's (containerd
 * does not use that either). Throws INVALID_ARGUMENT, INVALID_REFERENCE or CONFIG_INVALID for nonsense; never shows it.
 */
export function parsePullRequest(message: Uint8Array): Pull | undefined {
  const request = lastOf(message);
  const image = textOf(lastOf(request(PULL_IMAGE_REQUEST.image))(IMAGE_SPEC.image));
  const auth = request(PULL_IMAGE_REQUEST.auth);
  if (auth.byteLength === 0) return undefined;
  const reference = parseReference(image);
  const credential = credentialOf(auth, reference.registry);
  return credential === undefined ? undefined : { reference, credential };
}

/** In the order in which containerd looks at them. */
function credentialOf(auth: Uint8Array, registry: string): Credential | undefined {
  const field = lastOf(auth);
  const text = (number: number): string => textOf(field(number));
  const server = text(AUTH_CONFIG.serverAddress);
  if (server !== '' && canonicalHost(server) !== canonicalHost(registry)) return undefined;
  const username = text(AUTH_CONFIG.username);
  if (username !== '') return basicCredential(username, text(AUTH_CONFIG.password));
  const identityToken = text(AUTH_CONFIG.identityToken);
  if (identityToken !== '') return { kind: 'identity-token', token: new Secret(identityToken) };
  const encoded = text(AUTH_CONFIG.auth);
  if (encoded !== '') return decodeAuth(encoded, 'a pull request');
  const registryToken = text(AUTH_CONFIG.registryToken);
  return registryToken === '' ? undefined : { kind: 'registry-token', token: new Secret(registryToken) };
}

const EMPTY = new Uint8Array(0);

/** Of a field that comes several times the last counts; of one that does not come, nothing. */
function lastOf(message: Uint8Array): (number: number) => Uint8Array {
  const fields = new Map(wireFields(message).map(({ number, bytes }) => [number, bytes]));
  return (number) => fields.get(number) ?? EMPTY;
}

function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('utf8');
}
