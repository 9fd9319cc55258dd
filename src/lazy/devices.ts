import type { Digest } from '../core/digest.ts';
import { ShoalError } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { BlobDevice } from '../store/blob-device.ts';
import type { BlobStore } from '../store/blob-store.ts';
import type { Trap } from '../trap/trap.ts';
import type { Prefetcher } from './prefetch.ts';

/** The devices that a trap watches, and for how many runs. */
export interface AttachedDevices {
  /** One more run reads this blob: traps its device if it is not complete. `path` is for `device=`. */
  hold(blob: Digest): Promise<{ readonly path: string; readonly complete: boolean }>;
  /** True while this blob is held and complete. */
  isComplete(blob: Digest): boolean;
  /** One run less; the device is let go with the last. */
  release(blob: Digest): Promise<void>;
  /** The device with this number, while it is trapped. */
  byId(id: number): BlobDevice | undefined;
}

interface Attached {
  readonly device: BlobDevice;
  path: string;
  holders: number;
  /** Stops waiting for completion. */
  unwatch: () => void;
}

export function createAttachedDevices(components: {
  blobs: BlobStore;
  trap: Trap;
  prefetcher: Prefetcher;
  log: Logger;
}): AttachedDevices {
  const { blobs, trap, prefetcher, log } = components;
  const byBlob = new Map<Digest, Attached>();
  const byId = new Map<number, BlobDevice>();
  /** Attach and detach of one device must not overtake each other. */
  const queues = new Map<Digest, Promise<unknown>>();

  function inTurn<T>(blob: Digest, work: () => Promise<T>): Promise<T> {
    const turn = (queues.get(blob) ?? Promise.resolve()).then(work, work);
    const settled = turn.catch(() => {});
    queues.set(blob, settled);
    void settled.then(() => {
      if (queues.get(blob) === settled) queues.delete(blob);
    });
    return turn;
  }

  async function attach(blob: Digest): Promise<Attached> {
    const known = byBlob.get(blob);
    if (known !== undefined) return known;
    const device = await blobs.open(blob);
    if (device === undefined) throw new ShoalError('UNAVAILABLE', `layer ${blob} is not in the store`, { layer: blob });
    const attached: Attached = { device, path: device.path, holders: 0, unwatch: () => {} };
    byBlob.set(blob, attached);
    if (device.complete) return attached;
    byId.set(device.id, device);
    try {
      attached.path = await trap.attach(device);
    } catch (error) {
      byBlob.delete(blob);
      byId.delete(device.id);
      throw error;
    }
    attached.unwatch = device.onComplete(
      () => void inTurn(blob, () => completed(attached)).catch((error) => warn(blob, error)),
    );
    return attached;
  }

  /** A complete fanotify device needs no trap; FUSE keeps serving the mounts that were made on it. */
  async function completed(attached: Attached): Promise<void> {
    if (trap.kind === 'fuse') return;
    await trap.detach(attached.device);
    byId.delete(attached.device.id);
    log.info('layer is complete', { layer: attached.device.name });
  }

  function warn(blob: Digest, error: unknown): void {
    log.warn('cannot stop trapping a complete layer', { layer: blob, error: String(error) });
  }

  return {
    hold(blob) {
      return inTurn(blob, async () => {
        const attached = await attach(blob);
        attached.holders += 1;
        prefetcher.add(attached.device);
        // A device that is complete by now is read straight from its file, whatever trap earlier mounts went through.
        const { complete, path } = attached.device;
        return { path: complete ? path : attached.path, complete };
      });
    },
    release(blob) {
      return inTurn(blob, async () => {
        const attached = byBlob.get(blob);
        if (attached === undefined) return;
        attached.holders -= 1;
        if (attached.holders > 0) return;
        byBlob.delete(blob);
        byId.delete(attached.device.id);
        attached.unwatch();
        await trap.detach(attached.device);
      });
    },
    isComplete: (blob) => byBlob.get(blob)?.device.complete === true,
    byId: (id) => byId.get(id),
  };
}
