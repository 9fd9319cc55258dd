/**
 * The error catalogue: one class, one stable `code` per cause, one heading per code in docs/errors.md.
 * Branch on `code`, never on a message.
 */

/** Every code shoal can raise. A test holds this list against the headings of docs/errors.md. */
export const ERROR_CODES = [
  // containerd's vocabulary: maps one to one to gRPC status codes
  'INVALID_ARGUMENT',
  'NOT_FOUND',
  'ALREADY_EXISTS',
  'FAILED_PRECONDITION',
  'UNAVAILABLE',
  // what comes from outside
  'INVALID_DIGEST',
  'INVALID_REFERENCE',
  'INVALID_MANIFEST',
  'INVALID_LAYER',
  'INVALID_CHUNK_TABLE',
  'UNSUPPORTED_LAYER',
  'TOO_LARGE',
  'CHUNK_CORRUPT',
  // sources: missing is not failing
  'CHUNK_MISSING',
  'SOURCE_FAILED',
  'REGISTRY_RESPONSE',
  'RANGE_MISMATCH',
  'AUTH_REFUSED',
  'URL_REFUSED',
  'DEADLINE_EXCEEDED',
  'PEER_PROTOCOL',
  // this machine
  'CONFIG_INVALID',
  'KERNEL_CALL',
  'TRAP_UNAVAILABLE',
  'MOUNT_FAILED',
  'STATE_CORRUPT',
  'STORE_IO',
] as const;

/** A stable error code. */
export type ErrorCode = (typeof ERROR_CODES)[number];

/** Facts about where an error happened; `image` and `layer` are added by whoever knows them. */
export interface ErrorContext {
  readonly image?: string;
  readonly layer?: string;
  readonly cause?: unknown;
  /** Linux errno number, for KERNEL_CALL. */
  readonly errno?: number;
  /** HTTP status, for REGISTRY_RESPONSE. */
  readonly status?: number;
  /** Milliseconds after which a retry makes sense, when the other side said so. */
  readonly retryAfterMs?: number;
  /** Whose error it is, when a mirror said so: `backend` (the registry's), `proxy`, `dfdaemon`. */
  readonly errorType?: string;
}

/** Base of all errors shoal raises on purpose: message for people, `code` for programs. */
export class ShoalError extends Error {
  override readonly name: string = 'ShoalError';
  readonly code: ErrorCode;
  readonly context: ErrorContext;

  constructor(code: ErrorCode, message: string, context: ErrorContext = {}) {
    super(message, context.cause === undefined ? undefined : { cause: context.cause });
    this.code = code;
    this.context = context;
  }

  /** The message with the image and layer it is about, on one line. */
  describe(): string {
    const about = [this.context.image, this.context.layer].filter((part) => part !== undefined).join(' ');
    const line = `${this.code}: ${about === '' ? '' : `${about}: `}${this.message}`;
    return line.replaceAll('\n', ' ');
  }
}

/** True when `error` is a ShoalError with this code. */
export function hasCode(error: unknown, code: ErrorCode): error is ShoalError {
  return error instanceof ShoalError && error.code === code;
}

/** The same error, now naming image and layer as well (an inner context wins). Foreign errors are wrapped as `code`. */
export function withContext(
  error: unknown,
  context: { image?: string | undefined; layer?: string | undefined },
  code: ErrorCode = 'INVALID_LAYER',
): ShoalError {
  const known = error instanceof ShoalError ? error : undefined;
  const merged: Record<string, unknown> = { cause: error, ...context, ...known?.context };
  for (const [key, value] of Object.entries(merged)) if (value === undefined) delete merged[key];
  const message = known?.message ?? (error instanceof Error ? error.message : String(error));
  return new ShoalError(known?.code ?? code, message, merged as ErrorContext);
}
