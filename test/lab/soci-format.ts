import { sha256 } from '../../src/core/digest.ts';
import { type Descriptor, fetchManifest, type Manifest } from '../e2e/node-lab.ts';
import { putBlob } from '../e2e/registry-content.ts';
import { type ZtocOptions, ztocOf } from '../fakes/soci/ztoc-writer.ts';
import type { LabRegistry } from './registry.ts';

const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';
const INDEX_TYPE = 'application/vnd.oci.image.index.v1+json';
/** Small, so that the lab's images have several spans. */
const SPAN_BYTES = 1024 * 1024;

/** A manifest in a registry. */
export interface Pushed {
  readonly digest: string;
  readonly size: number;
}

/** What a SOCI index is made with. */
export interface SociOptions extends ZtocOptions {
  /** Layers of fewer bytes get no ztoc. */
  readonly minLayerBytes?: number;
}

/** Puts the image into its repository under another tag, as `soci convert` does: its manifest names a SOCI index (v2). */
export async function convertToSoci(
  { registry }: { registry: LabRegistry },
  { from, tag, options = {} }: { from: string; tag: string; options?: SociOptions },
): Promise<Pushed> {
  const [name] = from.split(':') as [string];
  const manifest = await fetchManifest(registry, from);
  const index = await putSociIndex(registry, name, manifest, { ...options, version: 2 });
  const annotations = { 'com.amazon.soci.index-digest': index.digest };
  const { config, layers } = manifest;
  return await putManifest(registry, name, tag, { config, layers, annotations });
}

/** Lets a SOCI index (v1) refer to the image, listed under the tag that stands in for the referrers API. */
export async function referWithSoci(registry: LabRegistry, image: string, options: SociOptions = {}): Promise<Pushed> {
  const [name] = image.split(':') as [string];
  const manifest = await fetchManifest(registry, image);
  const index = await putSociIndex(registry, name, manifest, { ...options, version: 1 });
  const artifactType = 'application/vnd.amazon.soci.index.v1+json';
  const manifests = [{ mediaType: MANIFEST_TYPE, ...index, artifactType }];
  const body = JSON.stringify({ schemaVersion: 2, mediaType: INDEX_TYPE, manifests });
  await put(registry, `${name}/manifests/${manifest.digest.replace(':', '-')}`, INDEX_TYPE, body);
  return index;
}

async function putSociIndex(
  registry: LabRegistry,
  name: string,
  manifest: Manifest,
  { version, minLayerBytes = 0, ...options }: SociOptions & { version: 1 | 2 },
): Promise<Pushed> {
  const layers: Descriptor[] = [];
  for (const { digest, size, mediaType } of manifest.layers) {
    if (size < minLayerBytes) continue;
    const ztoc = ztocOf(await fetchBlob(registry, name, digest), { spanBytes: SPAN_BYTES, ...options });
    layers.push({
      mediaType: 'application/octet-stream',
      digest: await putBlob(registry, name, ztoc),
      size: ztoc.byteLength,
      annotations: {
        'com.amazon.soci.image-layer-digest': digest,
        'com.amazon.soci.image-layer-mediaType': mediaType,
      },
    });
  }
  const mediaType = `application/vnd.amazon.soci.index.v${version}+json`;
  const config = { mediaType, digest: await putBlob(registry, name, Buffer.from('{}')), size: 2 };
  const { byteLength } = Buffer.from(await fetchText(registry, name, manifest.digest));
  const subject = { mediaType: MANIFEST_TYPE, digest: manifest.digest, size: byteLength };
  const annotations = { 'com.amazon.soci.build-tool-identifier': 'the tests of shoal' };
  const own = version === 1 ? { subject } : {};
  return await putManifest(registry, name, undefined, { artifactType: mediaType, config, layers, annotations, ...own });
}

async function putManifest(
  registry: LabRegistry,
  name: string,
  tag: string | undefined,
  document: object,
): Promise<Pushed> {
  const body = JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST_TYPE, ...document });
  const digest = sha256(body);
  await put(registry, `${name}/manifests/${tag ?? digest}`, MANIFEST_TYPE, body);
  return { digest, size: Buffer.byteLength(body) };
}

async function put(registry: LabRegistry, path: string, mediaType: string, body: string): Promise<void> {
  const done = await fetch(`http://${registry.host}/v2/${path}`, {
    method: 'PUT',
    body,
    headers: { 'content-type': mediaType },
  });
  if (done.status !== 201) throw new Error(`${path}: ${done.status} ${await done.text()}`);
}

async function fetchBlob(registry: LabRegistry, name: string, digest: string): Promise<Buffer> {
  return Buffer.from(await (await fetch(`http://${registry.host}/v2/${name}/blobs/${digest}`)).arrayBuffer());
}

async function fetchText(registry: LabRegistry, name: string, digest: string): Promise<string> {
  const url = `http://${registry.host}/v2/${name}/manifests/${digest}`;
  return await (await fetch(url, { headers: { accept: MANIFEST_TYPE } })).text();
}
