import { type Digest, parseDigest } from '../core/digest.ts';
import { hasCode } from '../errors.ts';
import type { LayerDescriptor } from '../image/layer-reader.ts';
import { parseReference, type Reference } from '../image/reference.ts';
import { SECRET_LABEL } from '../snapshot/snapshot-info.ts';
import { basicCredential, type Credential } from '../source/origin/credentials.ts';

/** What the labels of a Prepare say about the layer it is for. */
export interface LayerRequest {
  readonly reference: Reference;
  readonly layer: LayerDescriptor;
  /** Present when the CRI sent it: lets the manifest be fetched by digest. */
  readonly manifestDigest?: Digest;
  /** The image's top layer, when the CRI sent a list that was not too long for a label. */
  readonly topLayer?: Digest;
  /** User name and password for the repository, when the client sent them. */
  readonly credential?: Credential;
}

/** Label names of containerd's CRI plugin (pkg/snapshotters/annotations.go) and of stargz' `rpull` (fs/source). */
const IMAGE_REF = ['containerd.io/snapshot/cri.image-ref', 'containerd.io/snapshot/remote/stargz.reference'];
const LAYER_DIGEST = ['containerd.io/snapshot/cri.layer-digest', 'containerd.io/snapshot/remote/stargz.digest'];
/** This layer and those above it, with commas between. */
const IMAGE_LAYERS = ['containerd.io/snapshot/cri.image-layers', 'containerd.io/snapshot/remote/stargz.layers'];
const MANIFEST_DIGEST = ['containerd.io/snapshot/cri.manifest-digest'];
/** As nydus-snapshotter names them (pkg/label). */
const USERNAME = ['containerd.io/snapshot/pullusername'];
/** containerd passes layer annotations on as labels when they have this prefix. */
const INHERITED_PREFIX = 'containerd.io/snapshot/';

/**
 * Reads the snapshot labels; undefined when they don't name an image and a layer (a container's own snapshot, or a
 * client that sends no annotations). Throws INVALID_REFERENCE or INVALID_DIGEST when they do, but wrongly.
 */
export function layerRequestFrom(labels: ReadonlyMap<string, string>): LayerRequest | undefined {
  const reference = firstOf(labels, IMAGE_REF);
  const digest = firstOf(labels, LAYER_DIGEST);
  if (reference === undefined || digest === undefined) return undefined;
  const annotations: Record<string, string> = {};
  for (const [key, value] of labels) {
    if (key.startsWith(INHERITED_PREFIX) && key !== SECRET_LABEL) annotations[key] = value;
  }
  const username = firstOf(labels, USERNAME);
  const password = firstOf(labels, [SECRET_LABEL]);
  return {
    reference: parseReference(reference),
    layer: { digest: parseDigest(digest), annotations },
    ...optional('manifestDigest', firstOf(labels, MANIFEST_DIGEST)),
    ...optional('topLayer', firstOf(labels, IMAGE_LAYERS)?.split(',').at(-1)),
    ...(username === undefined || password === undefined ? {} : { credential: basicCredential(username, password) }),
  };
}

function optional<K extends string>(key: K, text: string | undefined): { [key in K]?: Digest } {
  if (text === undefined) return {};
  try {
    return { [key]: parseDigest(text) } as { [key in K]: Digest };
  } catch (error) {
    if (hasCode(error, 'INVALID_DIGEST')) return {};
    throw error;
  }
}

function firstOf(labels: ReadonlyMap<string, string>, names: readonly string[]): string | undefined {
  for (const name of names) {
    const value = labels.get(name);
    if (value !== undefined && value !== '') return value;
  }
  return undefined;
}
