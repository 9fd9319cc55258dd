import type { Digest } from '../core/digest.ts';
import { ShoalError } from '../errors.ts';
import type { BlobDevice } from '../store/blob-device.ts';
import type { BlobStore } from '../store/blob-store.ts';

/** The devices of a run, and for each of its layers which of them its tree's device numbers mean. */
export interface RunDevices {
  readonly devices: readonly Digest[];
  readonly layers: readonly { readonly blob: Digest; readonly devices: readonly number[] }[];
}

/** Which devices these layers lie on, each listed once. Throws UNAVAILABLE when a layer is not in the store. */
export async function devicesOfRun(blobs: BlobStore, layers: readonly Digest[]): Promise<RunDevices> {
  const numbers = new Map<Digest, number>();
  const numberOf = (device: Digest): number => {
    const known = numbers.get(device);
    if (known !== undefined) return known;
    numbers.set(device, numbers.size);
    return numbers.size - 1;
  };
  const mapped: { blob: Digest; devices: number[] }[] = [];
  for (const blob of layers) {
    const { info } = await storedBlob(blobs, blob);
    mapped.push({ blob, devices: (info.devices ?? [blob]).map(numberOf) });
  }
  return { devices: [...numbers.keys()], layers: mapped };
}

/** These blobs and the devices that they, as layers, lie on. */
export async function withDevices(blobs: BlobStore, layers: Iterable<Digest>): Promise<Set<Digest>> {
  const all = new Set(layers);
  for (const blob of [...all]) {
    for (const device of (await blobs.open(blob))?.info.devices ?? []) all.add(device);
  }
  return all;
}

/** The device of a blob; throws UNAVAILABLE when it is not in the store. */
export async function storedBlob(blobs: BlobStore, blob: Digest): Promise<BlobDevice> {
  const device = await blobs.open(blob);
  if (device === undefined) throw new ShoalError('UNAVAILABLE', `layer ${blob} is not in the store`, { layer: blob });
  return device;
}
