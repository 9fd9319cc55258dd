import { type Digest, parseDigest } from '../../core/digest.ts';
import { ShoalError } from '../../errors.ts';
import type { ReadOptions } from '../../image/layer-reader.ts';
import { parseContentLength, parseContentRange } from './content-range.ts';
import { REGISTRY_LIMITS } from './limits.ts';
import type { SessionRequest } from './session.ts';
import type { BodyPlan, Exchange, ResponseHeaders } from './transport.ts';

/** The end of a blob: `bytes` lie at `offset` of its `size` bytes. */
export interface BlobTail {
  readonly bytes: Uint8Array;
  readonly offset: number;
  readonly size: number;
}

interface Where {
  readonly registry: string;
  readonly repository: string;
  readonly retryBudgetMs?: number;
}

/** Ranged reads of blobs: every answer is held against what was asked before a byte of its body is read. */
export class BlobReader {
  readonly #send: (request: SessionRequest) => Promise<Exchange>;

  constructor(send: (request: SessionRequest) => Promise<Exchange>) {
    this.#send = send;
  }

  /** Exactly bytes [offset, offset + length) of a blob of `size` bytes. */
  async read(
    where: Where,
    digest: Digest,
    size: number,
    { offset, length }: { offset: number; length: number },
    options: ReadOptions,
  ): Promise<Uint8Array> {
    if (
      !(
        Number.isSafeInteger(offset) &&
        Number.isSafeInteger(length) &&
        offset >= 0 &&
        length >= 0 &&
        offset + length <= size
      )
    ) {
      throw new ShoalError('RANGE_MISMATCH', `bytes ${offset}+${length} are not within the ${size} bytes of ${digest}`);
    }
    if (length > REGISTRY_LIMITS.maxReadBytes) {
      throw new ShoalError('TOO_LARGE', `read of ${length} bytes, limit ${REGISTRY_LIMITS.maxReadBytes}`);
    }
    if (length === 0) return new Uint8Array(0);
    const range = `bytes=${offset}-${offset + length - 1}`;
    const { body } = await this.#get(where, digest, range, options, (status, headers) => {
      if (status === 200 && length === size) return wholeBody(where, digest, size, headers);
      requireStatus(where, digest, status, 206);
      return rangeBody(where, digest, { offset, length, size }, headers);
    });
    return body;
  }

  /** All of a blob whose size is known. */
  async whole(where: Where, digest: Digest, size: number, signal: AbortSignal): Promise<Uint8Array> {
    const { body } = await this.#get(where, digest, undefined, { signal }, (status, headers) => {
      requireStatus(where, digest, status, 200);
      return wholeBody(where, digest, size, headers);
    });
    return body;
  }

  /** The last `maxBytes`, by suffix range; by size and plain range where the server knows no suffix ranges. */
  async tail(where: Where, digest: Digest, maxBytes: number, signal: AbortSignal): Promise<BlobTail> {
    const wanted = Math.min(Math.max(1, maxBytes), REGISTRY_LIMITS.maxReadBytes);
    let size: number | undefined;
    let exchange: Exchange | undefined;
    try {
      exchange = await this.#get(where, digest, `bytes=-${wanted}`, { signal }, (status, headers) => {
        size = undefined;
        if (status === 416) return { kind: 'discard' };
        if (status === 200) {
          const length = parseContentLength(headers['content-length']);
          size = length;
          // The whole blob, which may be what was asked for; otherwise only its length is of use.
          if (length === undefined || length > wanted) throw new NoSuffixRange();
          return wholeBody(where, digest, length, headers);
        }
        requireStatus(where, digest, status, 206);
        const range = parseContentRange(headers['content-range']);
        size = range?.total;
        if (size === undefined) throw mismatch(where, digest, `last ${wanted} bytes`, headers);
        const offset = Math.max(0, size - wanted);
        return rangeBody(where, digest, { offset, length: size - offset, size }, headers);
      });
    } catch (error) {
      if (!(error instanceof NoSuffixRange) && !isUnsupported(error)) throw error;
    }
    if (exchange !== undefined && exchange.status !== 416 && size !== undefined) {
      return { bytes: exchange.body, offset: size - exchange.body.byteLength, size };
    }
    const known = size ?? (await this.size(where, digest, signal));
    const offset = Math.max(0, known - wanted);
    return {
      bytes: await this.read(where, digest, known, { offset, length: known - offset }, { signal }),
      offset,
      size: known,
    };
  }

  /** Length of a blob, by HEAD, or by the total of a one-byte range where HEAD does not tell. */
  async size(where: Where, digest: Digest, signal: AbortSignal): Promise<number> {
    try {
      const { headers } = await this.#send({
        ...this.#request(where, digest, signal),
        method: 'HEAD',
        plan: () => ({ kind: 'discard' }),
      });
      const length = parseContentLength(headers['content-length']);
      if (length !== undefined && headers['content-encoding'] === undefined) return length;
    } catch (error) {
      if (!isUnsupported(error)) throw error;
    }
    let total: number | undefined;
    await this.#get(where, digest, 'bytes=0-0', { signal }, (status, headers) => {
      if (status === 416) total = 0;
      else requireStatus(where, digest, status, 206);
      total ??= parseContentRange(headers['content-range'])?.total;
      return { kind: 'discard' };
    });
    if (total !== undefined) return total;
    throw new ShoalError('REGISTRY_RESPONSE', `${where.registry} does not tell the size of blob ${digest}`);
  }

  #get(
    where: Where,
    digest: Digest,
    range: string | undefined,
    options: ReadOptions,
    plan: (status: number, headers: ResponseHeaders) => BodyPlan,
  ): Promise<Exchange> {
    return this.#send({
      ...this.#request(where, digest, options.signal),
      method: 'GET',
      ...(range === undefined ? {} : { range }),
      cacheRedirect: true,
      onBytes: options.onBytes,
      get urgency() {
        return options.urgency;
      },
      plan(status, headers) {
        requireIdentity(where.registry, headers);
        return plan(status, headers);
      },
    });
  }

  #request(where: Where, digest: Digest, signal: AbortSignal): Omit<SessionRequest, 'method' | 'plan'> {
    return { ...where, path: `/v2/${where.repository}/blobs/${parseDigest(digest)}`, signal };
  }
}

/** Refuses a body that is compressed in transit: its bytes are not those of the blob. */
export function requireIdentity(registry: string, headers: ResponseHeaders): void {
  const coding = headers['content-encoding'];
  if (coding !== undefined && coding !== '' && coding.toLowerCase() !== 'identity') {
    throw new ShoalError(
      'REGISTRY_RESPONSE',
      `${registry} sends content coded as ${JSON.stringify(coding.slice(0, 40))}`,
    );
  }
}

/** Stops reading a 200 that is not wanted; never leaves this file. */
class NoSuffixRange extends Error {}

function wholeBody({ registry }: Where, digest: Digest, size: number, headers: ResponseHeaders): BodyPlan {
  const length = headers['content-length'];
  if (length !== undefined && parseContentLength(length) !== size) {
    throw new ShoalError('RANGE_MISMATCH', `${registry} sends ${length} bytes for blob ${digest} of ${size} bytes`);
  }
  return { kind: 'exact', bytes: size };
}

function rangeBody(
  where: Where,
  digest: Digest,
  asked: { offset: number; length: number; size: number },
  headers: ResponseHeaders,
): BodyPlan {
  const range = parseContentRange(headers['content-range']);
  const { offset, length, size } = asked;
  const fits =
    range?.first === offset &&
    range.last === offset + length - 1 &&
    (range.total === size || range.total === undefined);
  const announced = headers['content-length'];
  if (!fits || (announced !== undefined && parseContentLength(announced) !== length)) {
    throw mismatch(where, digest, `bytes ${offset}-${offset + length - 1}/${size}`, headers);
  }
  return { kind: 'exact', bytes: length };
}

function requireStatus({ registry }: Where, digest: Digest, status: number, wanted: 200 | 206): void {
  if (status === wanted) return;
  if (status === 416)
    throw new ShoalError('RANGE_MISMATCH', `${registry} has no such range of blob ${digest}`, { status });
  const why = status === 200 ? ' (it ignores ranges)' : '';
  throw new ShoalError(
    'REGISTRY_RESPONSE',
    `${registry} answered ${status} instead of ${wanted} for blob ${digest}${why}`,
    {
      // Not retried: 200 is not a failure that passes.
      status,
    },
  );
}

function mismatch({ registry }: Where, digest: Digest, asked: string, headers: ResponseHeaders): ShoalError {
  const said = JSON.stringify((headers['content-range'] ?? 'no Content-Range').slice(0, 80));
  const length = headers['content-length'] ?? 'unknown';
  return new ShoalError(
    'RANGE_MISMATCH',
    `${registry} was asked for ${asked} of blob ${digest}, answers ${said}, length ${length}`,
  );
}

/** The server understood the question and does not do this. */
function isUnsupported(error: unknown): boolean {
  return error instanceof ShoalError && [400, 405, 416, 501].includes(error.context.status ?? 0);
}
