/** What a program's first bytes say must be loaded with it. */
export interface ProgramNeeds {
  /** Path of the dynamic loader, or of a script's interpreter. */
  readonly interpreter?: string;
  /** Names of shared libraries (`DT_NEEDED`), or the program that a script lets `env` look up. */
  readonly names: readonly string[];
  /** Directories the program itself names for them (`DT_RUNPATH`, `DT_RPATH`), `$ORIGIN` not replaced. */
  readonly searchPath: readonly string[];
  /** Name of the machine's directory below `lib`, as Debian has it. */
  readonly libraryFolder?: string;
}

const PT_LOAD = 1;
const PT_DYNAMIC = 2;
const PT_INTERP = 3;
const DT = { needed: 1n, strtab: 5n, rpath: 15n, runpath: 29n } as const;
/** e_machine of the platforms shoal runs on. */
const LIBRARY_FOLDERS: Readonly<Record<number, string>> = { 62: 'x86_64-linux-gnu', 183: 'aarch64-linux-gnu' };
/** Entries that are looked at; real files have about 10 segments and 40 dynamic entries. */
const MAX_ENTRIES = 512;
const MAX_STRING = 4096;

interface Segment {
  readonly type: number;
  readonly offset: number;
  readonly address: bigint;
  readonly length: number;
}

/** Reads a whole executable or library: 64-bit little-endian ELF (elf(5)) or a script; undefined for anything else. */
export function programNeeds(bytes: Uint8Array): ProgramNeeds | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.byteLength > 2 && view.getUint16(0) === 0x2321) return scriptNeeds(bytes);
  try {
    return bytes.byteLength >= 64 && view.getUint32(0) === 0x7f454c46 && view.getUint16(4) === 0x0201
      ? elfNeeds(bytes, view)
      : undefined;
  } catch (error) {
    // an offset that leads out of the file
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}

function scriptNeeds(bytes: Uint8Array): ProgramNeeds {
  const line = Buffer.from(bytes.subarray(2, 258)).toString('latin1').split('\n', 1)[0] as string;
  const [interpreter = '', ...args] = line.trim().split(/[ \t]+/);
  const viaEnv = interpreter.endsWith('/env')
    ? args.find((word) => !word.startsWith('-') && !word.includes('='))
    : undefined;
  return { interpreter, names: viaEnv === undefined ? [] : [viaEnv], searchPath: [] };
}

function elfNeeds(bytes: Uint8Array, view: DataView): ProgramNeeds {
  const segments = readSegments(view);
  const interp = segments.find(({ type }) => type === PT_INTERP);
  const dynamic = segments.find(({ type }) => type === PT_DYNAMIC);
  const folder = LIBRARY_FOLDERS[view.getUint16(18, true)];
  const strings = dynamic === undefined ? { names: [], searchPath: [] } : readDynamic(bytes, view, dynamic, segments);
  return {
    ...(interp === undefined ? {} : { interpreter: stringAt(bytes, interp.offset) }),
    ...strings,
    ...(folder === undefined ? {} : { libraryFolder: folder }),
  };
}

function readSegments(view: DataView): Segment[] {
  const table = Number(view.getBigUint64(32, true));
  const size = view.getUint16(54, true);
  const count = Math.min(view.getUint16(56, true), MAX_ENTRIES);
  return Array.from({ length: count }, (_, index) => {
    const at = table + index * size;
    return {
      type: view.getUint32(at, true),
      offset: Number(view.getBigUint64(at + 8, true)),
      address: view.getBigUint64(at + 16, true),
      length: Number(view.getBigUint64(at + 32, true)),
    };
  });
}

function readDynamic(
  bytes: Uint8Array,
  view: DataView,
  dynamic: Segment,
  segments: readonly Segment[],
): Pick<ProgramNeeds, 'names' | 'searchPath'> {
  const values: [bigint, bigint][] = [];
  const count = Math.min(Math.floor(dynamic.length / 16), MAX_ENTRIES);
  for (let index = 0; index < count; index += 1) {
    const at = dynamic.offset + index * 16;
    values.push([view.getBigUint64(at, true), view.getBigUint64(at + 8, true)]);
  }
  const address = values.find(([tag]) => tag === DT.strtab)?.[1] ?? 0n;
  const load = segments.find(
    (each) => each.type === PT_LOAD && address >= each.address && address < each.address + BigInt(each.length),
  );
  if (load === undefined) return { names: [], searchPath: [] };
  const table = load.offset + Number(address - load.address);
  const of = (...tags: bigint[]): string[] =>
    values.filter(([tag]) => tags.includes(tag)).map(([, value]) => stringAt(bytes, table + Number(value)));
  return { names: of(DT.needed), searchPath: of(DT.rpath, DT.runpath).flatMap((list) => list.split(':')) };
}

/** The text up to its NUL; throws RangeError outside the file. */
function stringAt(bytes: Uint8Array, offset: number): string {
  if (!(offset >= 0 && offset < bytes.byteLength)) throw new RangeError(`string at ${offset}`);
  const end = bytes.indexOf(0, offset);
  const stop = end === -1 ? bytes.byteLength : end;
  return Buffer.from(bytes.subarray(offset, Math.min(stop, offset + MAX_STRING))).toString('utf8');
}
