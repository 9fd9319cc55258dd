/**
 * Runs inside a network namespace where every address is this machine's: a registry full of malice on one public address,
 * listeners on all others. Prints how often something else than the registry was connected to, as JSON.
 */
import { connect, createServer, type LookupFunction, type Socket } from 'node:net';
import { hostPlatform } from '../../src/image/platform.ts';
import { parseReference, type Reference } from '../../src/image/reference.ts';
import { fetchImage } from '../../src/source/origin/fetch-image.ts';
import { FakeRegistry } from '../fakes/registry.ts';
import { FORBIDDEN_ADDRESSES, FORBIDDEN_NAMES, forbiddenUrls, neverUrls } from './forbidden-targets.ts';
import { imageAt, randomBytes, soon, testClient } from './origin/setup.ts';

const REGISTRY_ADDRESS = '8.8.8.8';
const REGISTRY = 'evil.example:8000';
const PORTS = [80, 443, 5000] as const;
const OWNER = { username: 'robot', password: 'canary-owner' };

const touched: string[] = [];
let refusals = 0;
const surprises: string[] = [];

async function listen(port: number): Promise<void> {
  const server = createServer((socket: Socket) => {
    touched.push(`${socket.localAddress}:${socket.localPort}`);
    socket.on('error', () => {});
    socket.destroy();
  });
  await new Promise<void>((resolve, reject) => {
    server.on('error', reject);
    server.listen({ port, host: '::', ipv6Only: false }, resolve);
  });
  server.unref();
}

/** Names resolve to what they stand for; `rebind…` is public for the policy's first look and forbidden ever after. */
const seen = new Map<string, number>();
const lookup: LookupFunction = (hostname, _options, callback) => {
  const count = (seen.get(hostname) ?? 0) + 1;
  seen.set(hostname, count);
  const rebound = hostname.startsWith('rebind') ? (count > 1 ? '169.254.169.254' : REGISTRY_ADDRESS) : undefined;
  const address =
    rebound ?? FORBIDDEN_NAMES[hostname] ?? (hostname === 'evil.example' ? REGISTRY_ADDRESS : '127.0.0.1');
  callback(null, [{ address, family: address.includes(':') ? 6 : 4 }]);
};

async function refused(what: string, work: Promise<unknown>): Promise<void> {
  const error = await work.then(
    () => undefined,
    (reason: Error & { code?: string }) => reason,
  );
  if (error?.code === 'URL_REFUSED' || error?.code === 'AUTH_REFUSED' || error?.code === 'INVALID_MANIFEST')
    refusals += 1;
  else surprises.push(`${what}: ${error?.code ?? 'no error'} ${error?.message ?? ''}`);
}

async function reaches(address: string, port: number): Promise<boolean> {
  const before = touched.length;
  await new Promise<void>((resolve) => {
    const socket = connect({ host: address, port });
    socket.on('error', () => resolve());
    socket.on('close', () => resolve());
  });
  await new Promise((resolve) => setTimeout(resolve, 5));
  return touched.length > before;
}

function rules(host: string, more: object = {}) {
  return { lookup, registries: { [host]: { plainHttp: true, ...more } } };
}

async function blobOf(
  client: ReturnType<typeof testClient>,
  where: Reference,
  registry: FakeRegistry,
): Promise<() => Promise<unknown>> {
  const digest = registry.addBlob(randomBytes(100));
  const blob = await client.blob(where, { digest, size: 100 }, { signal: soon() });
  return () => blob.read(0, 10, { signal: soon() });
}

for (const port of PORTS) await listen(port);
const reachable: string[] = [];
for (const address of FORBIDDEN_ADDRESSES) if (await reaches(address, 443)) reachable.push(address);
touched.length = 0;

await using registry = await FakeRegistry.start({ address: REGISTRY_ADDRESS, port: Number(REGISTRY.split(':')[1]) });
const where = imageAt(REGISTRY);
const urls = forbiddenUrls();
const init = { attempts: 1, connectTimeoutMs: 500 };

// Redirects of a blob, at once and after a harmless hop.
await using client = testClient({ policy: rules(REGISTRY), credentials: { [REGISTRY]: OWNER }, init });
const read = await blobOf(client, where, registry);
for (const url of urls) {
  registry.inject({ redirectTo: url, times: 1 });
  await refused(`redirect to ${url}`, read());
  registry.heal();
  registry.inject({ redirectTo: `http://${REGISTRY}/v2/hop`, times: 1 });
  registry.inject({ redirectTo: url, times: 1 });
  await refused(`second redirect to ${url}`, read());
  registry.heal();
}

// A registry that may be private leads to private places, but to no metadata and no loopback.
await using corporate = testClient({ policy: rules(REGISTRY, { allowPrivate: true }), init });
const readCorporate = await blobOf(corporate, where, registry);
for (const url of neverUrls()) {
  registry.inject({ redirectTo: url, times: 1 });
  await refused(`redirect of a private registry to ${url}`, readCorporate());
  registry.heal();
}

// The token server that a challenge names.
for (const url of urls) {
  registry.auth = { scheme: 'bearer', realm: url };
  await using asking = testClient({ policy: rules(REGISTRY), credentials: { [REGISTRY]: OWNER }, init });
  await refused(`realm ${url}`, (await blobOf(asking, where, registry))());
}
registry.auth = undefined;

// Layers that say where else they are.
for (const url of urls) {
  const config = {
    mediaType: 'application/vnd.oci.image.config.v1+json',
    digest: registry.addBlob(Buffer.from('{}')),
    size: 2,
  };
  const layer = {
    mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
    digest: registry.addBlob(randomBytes(10)),
    size: 10,
    urls: [url],
  };
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  registry.addManifest('team/app', '1', { schemaVersion: 2, mediaType, config, layers: [layer] });
  const image = fetchImage(client, where, { platform: hostPlatform('x64'), signal: soon() });
  const layers = await image.then(
    ({ manifest }) => manifest.layers,
    () => undefined,
  );
  const [named] = layers ?? [];
  if (named !== undefined) {
    const blob = await client.blob(where, named, { signal: soon() });
    await blob.read(0, 10, { signal: soon() });
  }
  refusals += 1;
}

// Images of registries that are such places themselves.
for (const url of urls) {
  const host = URL.parse(url)?.host ?? '';
  await using direct = testClient({ policy: { lookup }, init });
  for (const name of [host, url.split('/')[2] ?? '']) {
    // An address that stands in the image's own name is what somebody asked for; a name that only leads there is not.
    if (/^(\[?[\d.:a-f]+\]?|localhost|.*\.localhost)(:\d+)?\.?$/i.test(name)) continue;
    const parsed = await Promise.resolve(name)
      .then((text) => parseReference(`${text}/a/b`))
      .catch(() => undefined);
    if (parsed !== undefined) await refused(`registry ${name}`, direct.resolve(parsed, { signal: soon() }));
  }
}
for (const host of [
  '169.254.169.254',
  '0.0.0.0',
  '100.100.100.200',
  '[fd00:ec2::254]',
  '[::ffff:169.254.169.254]',
  '168.63.129.16',
]) {
  await using direct = testClient({ policy: { lookup }, init });
  const parsed = await Promise.resolve(host)
    .then((text) => parseReference(`${text}/a/b`))
    .catch(() => undefined);
  if (parsed !== undefined) await refused(`registry ${host}`, direct.resolve(parsed, { signal: soon() }));
}

// Names that change what they resolve to between two connections.
for (let round = 0; round < 5; round += 1) {
  const host = `rebind${round}.example:8000`;
  await using bound = testClient({ policy: rules(host), init });
  const again = await blobOf(bound, imageAt(host), registry);
  registry.inject({ headers: { connection: 'close' }, times: 1 });
  await again();
  await refused(`rebound ${host}`, again());
  registry.heal();
}

const { length: addresses } = FORBIDDEN_ADDRESSES;
const report = { urls: urls.length, reachable: reachable.length, addresses, refusals, surprises, touched };
process.stdout.write(JSON.stringify(report));
process.exit(0);
