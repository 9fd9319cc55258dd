import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { gunzipSync } from 'node:zlib';
import type { ChunkTable } from '../../../src/core/chunk-table.ts';
import { type Digest, sha256 } from '../../../src/core/digest.ts';
import { decodeExtent } from '../../../src/image/codec.ts';
import type { FileNode } from '../../../src/image/layer-tree.ts';
import { LayerPass, type PassResult } from '../../../src/image/pass/layer-pass.ts';
import { unpackWindow } from '../../../src/image/pass/windows.ts';
import { verifyChunk } from '../../../src/store/verify-chunk.ts';

const signal = AbortSignal.timeout(300_000);

/** A finished pass with the device it wrote. */
export interface Passed extends PassResult {
  readonly device: Buffer;
}

/** A pass over `bytes`, handed over in pieces of these sizes, over and over. */
export function passOver(bytes: Uint8Array, init: { pieces?: readonly number[]; digest?: Digest } = {}): Passed {
  const parts: Buffer[] = [];
  const pass = new LayerPass(
    {
      output(part, offset) {
        assert.equal(
          offset,
          parts.reduce((sum, each) => sum + each.byteLength, 0),
        );
        assert.equal(part.byteLength % 4096, 0);
        parts.push(Buffer.from(part));
      },
    },
    { digest: init.digest ?? sha256(bytes) },
  );
  try {
    const pieces = init.pieces ?? [4 * 1024 * 1024];
    for (let at = 0, turn = 0; at < bytes.byteLength; turn += 1) {
      const length = Math.min(pieces[turn % pieces.length] as number, bytes.byteLength - at);
      const piece = Buffer.allocUnsafeSlow(length);
      piece.set(bytes.subarray(at, at + length));
      pass.write(piece);
      at += length;
    }
    return { ...pass.finish(), device: Buffer.concat(parts) };
  } finally {
    pass.close();
  }
}

/** The device as it is when every chunk was fetched by range, alone, and verified. */
export async function refetched(
  blob: Uint8Array,
  { chunks, windows }: { chunks: ChunkTable; windows: readonly Uint8Array[] },
): Promise<Buffer> {
  const device = Buffer.alloc(chunks.deviceSize);
  for (let row = 0; row < chunks.count; row += 1) {
    const chunk = chunks.row(row);
    const { offset, length, codec, decodedLength, checkpoint } = chunks.extent(chunk.extent);
    const packed = checkpoint?.window === undefined ? undefined : (windows[checkpoint.window] as Uint8Array);
    const start = { bits: checkpoint?.bits ?? 0, window: packed === undefined ? undefined : unpackWindow(packed) };
    const coded = blob.subarray(offset, offset + length);
    const decoded = await decodeExtent(codec, coded, decodedLength, { signal, start });
    const bytes = decoded.subarray(chunk.innerOffset, chunk.innerOffset + chunk.length);
    device.set((await verifyChunk(chunk, bytes)).bytes, chunk.deviceOffset);
  }
  return device;
}

/** Content of a file on a device, hex sha256. */
export function fileSha256(file: FileNode, devices: readonly Uint8Array[]): string {
  const content = Buffer.alloc(file.size);
  for (const { fileOffset, length, device, deviceOffset } of file.extents) {
    content.set((devices[device] as Uint8Array).subarray(deviceOffset, deviceOffset + length), fileOffset);
  }
  return createHash('sha256').update(content).digest('hex');
}

/** sha256 of what gunzip makes of it. */
export function diffIdOf(blob: Uint8Array): Digest {
  return sha256(gunzipSync(blob));
}
