import type { Digest } from '../core/digest.ts';
import type { TextDb } from './text-db.ts';

/** What became of one layer of an image: read lazily, or left to containerd with the reason. */
export interface LayerOutcome {
  readonly digest: Digest;
  readonly lazy: boolean;
  /** Why containerd unpacks it. */
  readonly reason?: string;
}

/** An image that was offered to shoal, under the name it was pulled by. */
export interface ImageRecord {
  readonly reference: string;
  readonly manifestDigest?: Digest;
  /** In the order they were offered: bottom to top. */
  readonly layers: readonly LayerOutcome[];
}

/** The images on record, for `shoal status`; facts for people, nothing depends on them. */
export interface ImageRecords {
  note(reference: string, manifestDigest: Digest | undefined, layer: LayerOutcome): void;
  list(): readonly ImageRecord[];
  /** References of the images that this blob is a layer of. */
  namesOf(blob: Digest): readonly string[];
  /** Forgets lazy layers that are not kept any more, images left without one, and the oldest of those that had none. */
  retain(blobs: ReadonlySet<Digest>): Promise<void>;
  /** Waits until what was noted is on disk. */
  flush(): Promise<void>;
}

/** Images without a lazy layer that stay on record: nothing tells when containerd removes one. */
const UNPACKED_KEPT = 64;

export async function openImageRecords(db: TextDb): Promise<ImageRecords> {
  const images = new Map<string, ImageRecord>();
  for await (const [key, text] of db.iterator()) {
    try {
      images.set(key, JSON.parse(text) as ImageRecord);
    } catch {
      await db.del(key);
    }
  }
  let writing: Promise<void> = Promise.resolve();

  function write(record: ImageRecord): void {
    images.set(record.reference, record);
    writing = writing.then(() => db.put(record.reference, JSON.stringify(record))).catch(() => {});
  }

  async function forget(key: string): Promise<void> {
    images.delete(key);
    writing = writing.then(() => db.del(key)).catch(() => {});
    await writing;
  }

  return {
    note(reference, manifestDigest, layer) {
      const known = images.get(reference);
      const same = known?.manifestDigest === manifestDigest ? (known?.layers ?? []) : [];
      const at = same.findIndex(({ digest }) => digest === layer.digest);
      const layers = at < 0 ? [...same, layer] : same.with(at, layer);
      write({ reference, ...(manifestDigest === undefined ? {} : { manifestDigest }), layers });
    },
    list: () => [...images.values()],
    namesOf: (blob) =>
      [...images.values()]
        .filter(({ layers }) => layers.some(({ digest }) => digest === blob))
        .map(({ reference }) => reference),
    async retain(blobs) {
      const unpacked: string[] = [];
      for (const [key, image] of images) {
        const layers = image.layers.filter(({ digest, lazy }) => !lazy || blobs.has(digest));
        if (layers.some(({ lazy }) => lazy)) {
          // a tag that moved on without a manifest digest leaves the layers of what it named before
          if (layers.length < image.layers.length) write({ ...image, layers });
        } else if (image.layers.every(({ lazy }) => !lazy)) unpacked.push(key);
        else await forget(key);
      }
      for (const key of unpacked.slice(0, -UNPACKED_KEPT)) await forget(key);
    },
    flush: () => writing,
  };
}
