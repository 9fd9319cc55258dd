import { readFile } from 'node:fs/promises';
import { parseDigest } from '../../src/core/digest.ts';
import type { LayerDescriptor } from '../../src/image/layer-reader.ts';

/** A layer of a fixture: its descriptor in the manifest, and its blob. */
export interface FixtureLayer {
  readonly descriptor: LayerDescriptor;
  readonly bytes: Uint8Array;
}

interface RawDescriptor {
  readonly digest: string;
  readonly size: number;
  readonly mediaType: string;
  readonly annotations?: Record<string, string>;
}

/** The layers of the first manifest of an OCI layout below test/fixtures, bottom first. */
export async function fixtureLayers(name: string): Promise<FixtureLayer[]> {
  const base = new URL(`../fixtures/${name}/`, import.meta.url);
  const blob = (digest: string): Promise<Buffer> => readFile(new URL(`blobs/${digest.replace(':', '/')}`, base));
  const index = JSON.parse(await readFile(new URL('index.json', base), 'utf8')) as { manifests: RawDescriptor[] };
  const manifest = JSON.parse(String(await blob((index.manifests[0] as RawDescriptor).digest))) as {
    layers: RawDescriptor[];
  };
  return Promise.all(
    manifest.layers.map(async ({ digest, size, mediaType, annotations }) => ({
      descriptor: { digest: parseDigest(digest), size, mediaType, annotations: annotations ?? {} },
      bytes: await blob(digest),
    })),
  );
}
