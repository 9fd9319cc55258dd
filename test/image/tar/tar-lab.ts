/** An entry for `tarOf`; what is left out is what tar would write for a regular file. */
export interface TarInput {
  readonly path: string | Buffer;
  readonly type?: string;
  readonly data?: Uint8Array;
  readonly linkName?: string;
  readonly mode?: number;
  readonly size?: number;
  readonly mtime?: number;
  readonly dev?: readonly [number, number];
  readonly magic?: string;
  readonly prefix?: string;
  /** Pax records in front of it. */
  readonly pax?: Readonly<Record<string, string | Buffer>>;
  /** Changes the header block before it is summed up. */
  readonly change?: (header: Buffer) => void;
}

/** A ustar archive of these entries, with its end marker. */
export function tarOf(entries: readonly TarInput[]): Buffer {
  return Buffer.concat([...entries.map(entryOf), Buffer.alloc(1024)]);
}

/** One entry: header and padded data, pax header in front. */
export function entryOf(entry: TarInput): Buffer {
  const data = entry.data ?? new Uint8Array(0);
  const header = headerOf(entry, entry.size ?? data.byteLength);
  const body = Buffer.concat([header, data, Buffer.alloc((512 - (data.byteLength % 512)) % 512)]);
  if (entry.pax === undefined) return body;
  return Buffer.concat([entryOf({ path: 'pax', type: 'x', data: paxOf(entry.pax) }), body]);
}

/** Pax records as bytes. */
export function paxOf(records: Readonly<Record<string, string | Buffer>>): Buffer {
  return Buffer.concat(
    Object.entries(records).map(([key, value]) => {
      const rest = Buffer.concat([Buffer.from(` ${key}=`), Buffer.from(value as Buffer), Buffer.from('\n')]);
      let length = rest.byteLength + 1;
      while (String(length).length + rest.byteLength !== length) length += 1;
      return Buffer.concat([Buffer.from(String(length)), rest]);
    }),
  );
}

/** A header block with its checksum. */
export function headerOf(entry: TarInput, size: number): Buffer {
  const header = Buffer.alloc(512);
  Buffer.from(entry.path as Buffer).copy(header, 0, 0, 100);
  const octal = (value: number, at: number, length: number): void => {
    header.write(`${value.toString(8).padStart(length - 1, '0')}\0`, at, 'latin1');
  };
  octal(entry.mode ?? 0o644, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  octal(size, 124, 12);
  octal(entry.mtime ?? 1_700_000_000, 136, 12);
  header.write(entry.type ?? '0', 156, 'latin1');
  header.write(entry.linkName ?? '', 157, 100, 'latin1');
  header.write(entry.magic ?? 'ustar\x0000', 257, 8, 'latin1');
  octal(entry.dev?.[0] ?? 0, 329, 8);
  octal(entry.dev?.[1] ?? 0, 337, 8);
  header.write(entry.prefix ?? '', 345, 155, 'latin1');
  entry.change?.(header);
  header.fill(0x20, 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return header;
}
