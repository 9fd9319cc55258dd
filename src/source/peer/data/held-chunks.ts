import type { Digest } from '../../../core/digest.ts';
import type { BlobDevice } from '../../../store/blob-device.ts';
import type { BlobStore } from '../../../store/blob-store.ts';
import type { DocumentStore } from '../../../store/documents.ts';
import type { HaveMap, HeldChunks } from '../directory.ts';
import { sharedDocuments } from './documents.ts';
import { indexKey, type SharedIndexes } from './index-request.ts';

/** Digests per batch of `all`. */
const BATCH = 1_024;

/** What the blob store has for others; `shareable`: whether chunks of this layer may be given away (S13). */
export function createHeldChunks(components: {
  blobs: Pick<BlobStore, 'opened' | 'open' | 'list'>;
  shareable: (blob: Digest) => boolean;
  indexes?: SharedIndexes;
  documents?: { readonly store: DocumentStore; readonly isPrivate: (image: string) => boolean };
}): HeldChunks {
  const { blobs, shareable, documents, indexes } = components;
  return {
    haveMap(blob) {
      const device = shareable(blob) ? blobs.opened(blob) : undefined;
      return device?.table.shareable === true ? mapOf(device) : undefined;
    },
    async *all() {
      if (documents !== undefined) yield sharedDocuments(documents.store, documents.isPrivate);
      for (const blob of await blobs.list()) {
        const device = shareable(blob) ? await blobs.open(blob) : undefined;
        if (device?.table.shareable === true) yield* digestsOf(device);
      }
      const layers = (await indexes?.list()) ?? [];
      if (layers.length > 0) yield layers.map(indexKey);
    },
  };
}

/** One bit per row, set when the chunk is there. */
function mapOf({ table, presence }: BlobDevice): HaveMap {
  const bits = new Uint8Array(Math.ceil(table.count / 8));
  if (presence.complete) bits.fill(0xff);
  else {
    for (let row = 0; row < table.count; row += 1) {
      const { first, end } = table.blocksOf(row);
      if (presence.hasRange(first, end)) bits[row >>> 3] = (bits[row >>> 3] as number) | (1 << (row & 7));
    }
  }
  return { rows: table.count, bits };
}

function* digestsOf(device: BlobDevice): Generator<readonly Digest[]> {
  let batch: Digest[] = [];
  for (let row = 0; row < device.table.count; row += 1) {
    if (!device.hasChunk(row)) continue;
    batch.push(device.table.row(row).digest);
    if (batch.length < BATCH) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}
