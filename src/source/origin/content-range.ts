/** A parsed `Content-Range: bytes first-last/total` (RFC 9110, 14.4); `total` undefined for `*`. */
export interface ContentRange {
  readonly first: number;
  readonly last: number;
  readonly total: number | undefined;
}

const PATTERN = /^bytes (\d{1,16})-(\d{1,16})\/(\d{1,16}|\*)$/i;

/** Parses a satisfied byte range; undefined for everything else, also for ranges that contradict themselves. */
export function parseContentRange(header: string | undefined): ContentRange | undefined {
  const match = PATTERN.exec(header ?? '');
  if (match === null) return undefined;
  const first = Number(match[1]);
  const last = Number(match[2]);
  const total = match[3] === '*' ? undefined : Number(match[3]);
  if (!Number.isSafeInteger(last) || first > last) return undefined;
  if (total !== undefined && (!Number.isSafeInteger(total) || last >= total)) return undefined;
  return { first, last, total };
}

/** Parses a Content-Length: a safe integer, or undefined. */
export function parseContentLength(header: string | undefined): number | undefined {
  if (header === undefined || !/^\d{1,16}$/.test(header)) return undefined;
  const length = Number(header);
  return Number.isSafeInteger(length) ? length : undefined;
}
