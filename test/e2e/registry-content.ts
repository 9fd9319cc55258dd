import { createHash } from 'node:crypto';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { run } from '../lab/process.ts';
import type { LabRegistry } from '../lab/registry.ts';
import type { Descriptor, Manifest } from './node-lab.ts';

/** A copy of a registry's storage that a test may write to and damage. */
export async function copyStorage(storage: string, dir: string): Promise<string> {
  const copy = join(dir, 'storage');
  await run('cp', ['-a', '--reflink=auto', storage, copy]);
  return copy;
}

/** The file of a blob in a registry's storage. */
export function blobPath(storage: string, digest: string): string {
  const hex = digest.slice('sha256:'.length);
  return join(storage, 'docker/registry/v2/blobs/sha256', hex.slice(0, 2), hex, 'data');
}

/** Replaces a blob's bytes behind the registry's back; gives what they were. */
export async function damageBlob(path: string, change: (bytes: Buffer) => void): Promise<Buffer> {
  const original = await readFile(path);
  const damaged = Buffer.from(original);
  change(damaged);
  await replaceBlob(path, damaged);
  return original;
}

/** Puts these bytes in a blob's place at once. */
export async function replaceBlob(path: string, bytes: Uint8Array): Promise<void> {
  await writeFile(`${path}.new`, bytes);
  await rename(`${path}.new`, path);
}

/** Uploads a blob. */
export async function putBlob(registry: LabRegistry, name: string, bytes: Uint8Array): Promise<string> {
  const digest = digestOf(bytes);
  const base = `http://${registry.host}`;
  const begun = await fetch(`${base}/v2/${name}/blobs/uploads/`, { method: 'POST' });
  const location = new URL(begun.headers.get('location') ?? '', base);
  location.searchParams.set('digest', digest);
  const done = await fetch(location, {
    method: 'PUT',
    body: bytes as Uint8Array<ArrayBuffer>,
    headers: { 'content-type': 'application/octet-stream' },
  });
  if (done.status !== 201) throw new Error(`upload to ${name}: status ${done.status}`);
  return digest;
}

/** Uploads an image of layers that the repository has already; `diffIds` are their uncompressed digests. */
export async function putImage(
  registry: LabRegistry,
  image: string,
  content: { layers: readonly Descriptor[]; diffIds: readonly string[]; config: Record<string, unknown> },
): Promise<Manifest> {
  const [name, tag] = image.split(':') as [string, string];
  const configBytes = Buffer.from(
    JSON.stringify({ ...content.config, rootfs: { type: 'layers', diff_ids: content.diffIds } }),
  );
  const config = {
    mediaType: 'application/vnd.oci.image.config.v1+json',
    digest: await putBlob(registry, name, configBytes),
    size: configBytes.byteLength,
  };
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const body = JSON.stringify({ schemaVersion: 2, mediaType, config, layers: content.layers });
  const url = `http://${registry.host}/v2/${name}/manifests/${tag}`;
  const done = await fetch(url, { method: 'PUT', body, headers: { 'content-type': mediaType } });
  if (done.status !== 201) throw new Error(`manifest of ${image}: ${await done.text()}`);
  return { digest: digestOf(Buffer.from(body)), config, layers: content.layers };
}

/** The image configuration of a manifest, with its diff ids. */
export async function fetchConfig(
  registry: LabRegistry,
  image: string,
  manifest: Manifest,
): Promise<{ config: Record<string, unknown>; diffIds: readonly string[] }> {
  const name = image.split(':')[0];
  const response = await fetch(`http://${registry.host}/v2/${name}/blobs/${manifest.config.digest}`);
  const config = (await response.json()) as { rootfs: { diff_ids: string[] } };
  return { config, diffIds: config.rootfs.diff_ids };
}

/** A place in an eStargz blob: byte offset and length. */
export interface Extent {
  readonly offset: number;
  readonly length: number;
}

/** Where an eStargz blob keeps its table of contents, and the compressed bytes of one of its files. */
export function locate(blob: Buffer, file: string): { toc: Extent; file: Extent } {
  const footer = blob.subarray(blob.byteLength - 51).toString('latin1');
  const tocOffset = Number.parseInt(/([0-9a-f]{16})STARGZ/.exec(footer)?.[1] ?? '', 16);
  const tar = gunzipSync(blob.subarray(tocOffset, blob.byteLength - 51));
  const size = Number.parseInt(tar.toString('latin1', 124, 135), 8);
  const { entries } = JSON.parse(tar.toString('utf8', 512, 512 + size)) as {
    entries: { name: string; offset?: number }[];
  };
  const offset = entries.find(({ name }) => name.replace(/^\.\//, '') === file)?.offset;
  if (offset === undefined) throw new Error(`the layer has no ${file}`);
  const next = Math.min(tocOffset, ...entries.map((entry) => entry.offset ?? 0).filter((other) => other > offset));
  return {
    toc: { offset: tocOffset, length: blob.byteLength - 51 - tocOffset },
    file: { offset, length: next - offset },
  };
}

function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}
