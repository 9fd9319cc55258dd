import type { LayerDescriptor } from '../../layer-reader.ts';

/** Annotations and snapshot labels of Nydus layers (nydus-snapshotter pkg/label, pkg/converter/constant.go). */
export const NYDUS = {
  blob: 'containerd.io/snapshot/nydus-blob',
  bootstrap: 'containerd.io/snapshot/nydus-bootstrap',
  fsVersion: 'containerd.io/snapshot/nydus-fs-version',
  encrypted: 'containerd.io/snapshot/nydus-encrypted-blob',
  blobMediaType: 'application/vnd.oci.image.layer.nydus.blob.v1',
} as const;

/** A layer that holds data (or a reference to data) of a Nydus image, no files: containerd cannot unpack it. */
export function isNydusBlob({ mediaType, annotations }: Pick<LayerDescriptor, 'mediaType' | 'annotations'>): boolean {
  return mediaType === NYDUS.blobMediaType || annotations[NYDUS.blob] !== undefined;
}

/** The layer that holds the tree of a Nydus image. */
export function isNydusBootstrap({ annotations }: Pick<LayerDescriptor, 'annotations'>): boolean {
  return annotations[NYDUS.bootstrap] !== undefined;
}
