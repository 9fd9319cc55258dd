import { Builder, type Offset } from 'flatbuffers';

/** A value of a field: its number in the schema comes with it. */
export type FlatValue =
  | { readonly string: string | Uint8Array }
  | { readonly bytes: Uint8Array }
  | { readonly int8: number }
  | { readonly int32: number }
  | { readonly int64: number }
  | { readonly strings: readonly string[] }
  | { readonly table: FlatFields }
  | { readonly tables: readonly FlatFields[] };

/** Fields of a table by number. */
export type FlatFields = Readonly<Record<number, FlatValue>>;

/** The flatbuffer of this table, written by the format's own library. */
export function flatBuffer(root: FlatFields): Buffer {
  const builder = new Builder(1024);
  builder.finish(writeTable(builder, root));
  return Buffer.from(builder.asUint8Array());
}

function writeTable(builder: Builder, fields: FlatFields): Offset {
  const entries = Object.entries(fields).map(([field, value]) => [Number(field), value] as const);
  // What a table refers to is written before it.
  const offsets = new Map(entries.map(([field, value]) => [field, writeReferred(builder, value)]));
  builder.startObject(Math.max(0, ...entries.map(([field]) => field + 1)));
  for (const [field, value] of entries) {
    if ('int8' in value) builder.addFieldInt8(field, value.int8, null);
    else if ('int32' in value) builder.addFieldInt32(field, value.int32, null);
    else if ('int64' in value) builder.addFieldInt64(field, BigInt(value.int64), null);
    else builder.addFieldOffset(field, offsets.get(field) ?? 0, 0);
  }
  return builder.endObject();
}

function writeReferred(builder: Builder, value: FlatValue): Offset {
  if ('string' in value) return builder.createString(value.string);
  if ('bytes' in value) return builder.createByteVector(value.bytes);
  if ('table' in value) return writeTable(builder, value.table);
  if ('strings' in value)
    return writeVector(
      builder,
      value.strings.map((text) => builder.createString(text)),
    );
  if ('tables' in value)
    return writeVector(
      builder,
      value.tables.map((table) => writeTable(builder, table)),
    );
  return 0;
}

function writeVector(builder: Builder, offsets: readonly Offset[]): Offset {
  builder.startVector(4, offsets.length, 4);
  for (const offset of offsets.toReversed()) builder.addOffset(offset);
  return builder.endVector();
}
