import type { RangedBlob } from '../image/layer-reader.ts';
import type { RegistryClient } from '../source/origin/registry-client.ts';
import type { BlobOpener } from './layer-opener.ts';

/** Footers and indexes live at the end of a layer; what is read there anyway also tells how long the layer is. */
const TAIL_BYTES = 1024 * 1024;

/** How long a registry that fails is tried when a layer is opened: containerd can still unpack the layer by itself. */
export const OPEN_RETRY_MS = 2_000;

/** Opens blobs whose size only the registry knows (containerd's labels don't say it) with one request instead of two. */
export function createBlobOpener(client: RegistryClient): BlobOpener {
  return {
    async openBlob(reference, { digest, size }, { signal, tailBytes = TAIL_BYTES }) {
      const options = { signal, retryBudgetMs: OPEN_RETRY_MS };
      if (size !== undefined) return await client.blob(reference, { digest, size }, options);
      const tail = await client.blobTail(reference, digest, tailBytes, options);
      const blob = await client.blob(reference, { digest, size: tail.size }, options);
      return withTail(blob, tail);
    },
  };
}

function withTail(blob: RangedBlob, tail: { bytes: Uint8Array; offset: number }): RangedBlob {
  return {
    digest: blob.digest,
    size: blob.size,
    async read(offset, length, options) {
      if (offset < tail.offset || offset + length > blob.size) return await blob.read(offset, length, options);
      return tail.bytes.subarray(offset - tail.offset, offset - tail.offset + length);
    },
  };
}
