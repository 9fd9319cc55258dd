import type { ChunkColumns } from '../../core/chunk-table.ts';
import type { ErrorCode } from '../../errors.ts';
import type { Packing } from './layer-pass.ts';

/** From the main thread to a pass thread. */
export type PassCommand =
  | { readonly kind: 'begin'; readonly digest: string; readonly fd: number; readonly maxEntries: number | undefined }
  | { readonly kind: 'bytes'; readonly bytes: Uint8Array }
  | { readonly kind: 'end' }
  | { readonly kind: 'stop' };

/**
 * And back: each `bytes` is answered by `taken`, which brings them back, each pass that is not stopped ends with `result` or
 * `error`.
 */
export type PassNotice =
  | { readonly kind: 'taken'; readonly bytes: Uint8Array }
  | {
      readonly kind: 'result';
      readonly packing: Packing;
      readonly tree: Uint8Array;
      readonly chunks: ChunkColumns;
      readonly windows: Uint8Array | undefined;
      readonly diffId: string;
      readonly impliesDirs: boolean;
    }
  | { readonly kind: 'error'; readonly code: ErrorCode; readonly message: string; readonly errno: number | undefined };
