import { readFileSync, statSync } from 'node:fs';
import { type Digest, parseDigest } from '../../src/core/digest.ts';
import { ShoalError } from '../../src/errors.ts';
import { type Catalog, imageOf, layerOf, type ReadPlan, type SimChunk, type SimImage, type SimLayer } from './image.ts';

/** Larger recordings are refused: a start has thousands of cold reads, 200 bytes each. */
const MAX_TRACE_BYTES = 256 * 1024 * 1024;

/** A line that describes a layer: its chunk table's size, and what it has in the registry. */
export interface TraceLayerLine {
  readonly kind: 'layer';
  readonly blob: string;
  readonly rows: number;
  readonly bytes: number;
  readonly compressedBytes: number;
}

/** A line for a cold read of one chunk. Times are ms since the recording began. */
export interface TraceReadLine {
  readonly kind: 'read';
  readonly blob: string;
  readonly row: number;
  readonly digest: string;
  readonly bytes: number;
  readonly compressedBytes: number;
  /** First byte on the layer's device. */
  readonly offset: number;
  readonly atMs: number;
  readonly answeredMs: number;
}

/** A line for a chunk that was fetched ahead of readers. */
export type TraceAheadLine = Omit<TraceReadLine, 'kind' | 'atMs' | 'answeredMs'> & { readonly kind: 'ahead' };

/** A line for what the processors did until the last answer, ms: all of them for whatever, and for the daemon. */
export interface TraceCpuLine {
  readonly kind: 'cpu';
  readonly machineMs: number;
  readonly daemonMs: number;
}

type TraceLine = TraceLayerLine | TraceReadLine | TraceAheadLine | TraceCpuLine;

/** Numbers of each kind of line. */
const NUMBERS = {
  layer: ['rows', 'bytes', 'compressedBytes'],
  read: ['row', 'bytes', 'compressedBytes', 'offset', 'atMs', 'answeredMs'],
  ahead: ['row', 'bytes', 'compressedBytes', 'offset'],
  cpu: ['machineMs', 'daemonMs'],
} as const;

/** The image and the reads that a recording (`shoal trace record`, JSON lines) tells of. Throws CONFIG_INVALID. */
export function loadTrace(catalog: Catalog, init: { name: string; path: string }): SimImage {
  const { path } = init;
  let text: string;
  try {
    if (statSync(path).size > MAX_TRACE_BYTES) throw new Error(`larger than ${MAX_TRACE_BYTES} bytes`);
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new ShoalError('CONFIG_INVALID', `${path} can't be read: ${reason}`, { cause });
  }
  return parseTrace(catalog, text, init);
}

/** The same from its text; `path` is how errors call it. */
export function parseTrace(catalog: Catalog, text: string, init: { name: string; path: string }): SimImage {
  const layerLines: TraceLayerLine[] = [];
  const reads: TraceReadLine[] = [];
  const ahead: TraceAheadLine[] = [];
  let cpu: TraceCpuLine | undefined;
  for (const [at, line] of text.split('\n').entries()) {
    if (line.trim() === '') continue;
    const parsed = parseLine(line, `${init.path} line ${at + 1}`);
    if (parsed.kind === 'layer') layerLines.push(parsed);
    else if (parsed.kind === 'ahead') ahead.push(parsed);
    else if (parsed.kind === 'cpu') cpu = parsed;
    else reads.push(parsed);
  }
  if (reads.length === 0) throw new ShoalError('CONFIG_INVALID', `${init.path}: no read was recorded`);
  return assemble(catalog, init, { layerLines, reads, ahead, cpu });
}

function parseLine(line: string, where: string): TraceLine {
  const refuse = (why: string): ShoalError => new ShoalError('CONFIG_INVALID', `${where}: ${why}`);
  let value: Record<string, unknown>;
  try {
    value = JSON.parse(line) as Record<string, unknown>;
  } catch {
    throw refuse('not JSON');
  }
  if (typeof value !== 'object' || value === null) throw refuse('not an object');
  const { kind } = value;
  if (kind !== 'layer' && kind !== 'read' && kind !== 'ahead' && kind !== 'cpu') {
    throw refuse('"kind" must be layer, read, ahead or cpu');
  }
  for (const key of NUMBERS[kind]) {
    const number = value[key];
    if (typeof number !== 'number' || !(number >= 0) || number > Number.MAX_SAFE_INTEGER) {
      throw refuse(`"${key}" must be a number of at least 0`);
    }
  }
  try {
    if (kind !== 'cpu') parseDigest(value.blob);
    if (kind === 'read' || kind === 'ahead') parseDigest(value.digest);
  } catch (error) {
    throw refuse((error as Error).message);
  }
  return value as unknown as TraceLine;
}

/** Chunks that were never read are one more chunk per layer: whole-layer pulls move them, lazy starts don't. */
function assemble(
  catalog: Catalog,
  init: { name: string; path: string },
  {
    layerLines,
    reads,
    ahead,
    cpu,
  }: {
    layerLines: readonly TraceLayerLine[];
    reads: readonly TraceReadLine[];
    ahead: readonly TraceAheadLine[];
    cpu: TraceCpuLine | undefined;
  },
): SimImage {
  const chunks: SimChunk[] = [];
  const layers: SimLayer[] = [];
  const places = new Map<string, number>();
  for (const [index, line] of layerLines.entries()) {
    const first = chunks.length;
    const own = new Map<number, TraceReadLine | TraceAheadLine>();
    for (const each of ahead) if (each.blob === line.blob) own.set(each.row, each);
    for (const read of reads) if (read.blob === line.blob) own.set(read.row, read);
    for (const read of [...own.values()].sort((a, b) => a.row - b.row)) {
      places.set(`${read.blob}/${read.row}`, chunks.length);
      chunks.push(chunkOf(catalog, read, { index: chunks.length, layer: index, row: chunks.length - first }));
    }
    const rest = restOf(line, chunks.slice(first));
    if (rest !== undefined) {
      const digest = line.blob as Digest;
      const place = { index: chunks.length, layer: index, row: chunks.length - first, offset: line.bytes, count: 1 };
      chunks.push({ ...place, content: catalog.content(digest), digest, ...rest });
    }
    layers.push(layerOf(catalog, { index, digest: line.blob as Digest, first, chunks }));
  }
  const lost = reads.find(({ blob, row }) => !places.has(`${blob}/${row}`));
  if (lost !== undefined) throw new ShoalError('CONFIG_INVALID', `${init.path}: no layer line for ${lost.blob}`);
  const positions = reads.map(({ blob, row }) => places.get(`${blob}/${row}`) as number);
  return imageOf({
    name: init.name,
    layers,
    chunks,
    files: [positions],
    reads: { kind: 'trace', plan: planOf(reads, positions, cpu), ahead: aheadOf(chunks, reads, ahead, places) },
  });
}

function chunkOf(
  catalog: Catalog,
  read: TraceReadLine | TraceAheadLine,
  place: { index: number; layer: number; row: number },
): SimChunk {
  const digest = read.digest as Digest;
  const { bytes, compressedBytes, offset } = read;
  return { ...place, content: catalog.content(digest), digest, bytes, compressedBytes, offset, count: 1 };
}

/** What is fetched ahead, by the read it lies behind: the last one before it in its layer; the first, where none is. */
function aheadOf(
  chunks: readonly SimChunk[],
  reads: readonly TraceReadLine[],
  ahead: readonly TraceAheadLine[],
  places: ReadonlyMap<string, number>,
): ReadonlyMap<number, readonly number[]> {
  const placeOf = ({ blob, row }: { blob: string; row: number }): number => places.get(`${blob}/${row}`) as number;
  const read = [...new Set(reads.map(placeOf))].sort((a, b) => a - b);
  const found = new Map<number, number[]>();
  for (const at of ahead.map(placeOf)) {
    const { layer } = chunks[at] as SimChunk;
    const before = read.findLast((each) => each < at && chunks[each]?.layer === layer);
    const behind = before ?? read.find((each) => chunks[each]?.layer === layer) ?? (read[0] as number);
    const list = found.get(behind) ?? [];
    found.set(behind, list);
    list.push(at);
  }
  return found;
}

function restOf(
  line: TraceLayerLine,
  read: readonly SimChunk[],
): { bytes: number; compressedBytes: number } | undefined {
  let { bytes, compressedBytes } = line;
  for (const chunk of read) {
    bytes -= chunk.bytes;
    compressedBytes -= chunk.compressedBytes;
  }
  return bytes <= 0 ? undefined : { bytes, compressedBytes: Math.max(1, compressedBytes) };
}

/**
 * A read may begin when those answered before it began are answered, and the container has worked for the time between:
 * on so many processors that it took what the machine worked beside the daemon.
 */
function planOf(
  reads: readonly TraceReadLine[],
  positions: readonly number[],
  cpu: TraceCpuLine | undefined,
): ReadPlan {
  const order = reads.map((read, at) => ({ read, at })).sort((a, b) => a.read.atMs - b.read.atMs);
  const answers = reads.map(({ answeredMs }) => answeredMs).sort((a, b) => a - b);
  const chunk = new Uint32Array(order.length);
  const after = new Uint32Array(order.length);
  const thinkMs = new Float32Array(order.length);
  let answered = 0;
  for (const [place, { read, at }] of order.entries()) {
    while (answered < answers.length && (answers[answered] as number) <= read.atMs) answered += 1;
    chunk[place] = positions[at] as number;
    // Never more than can have been answered: clocks of a recording are rounded.
    after[place] = Math.min(answered, place);
    thinkMs[place] =
      read.atMs - ((after[place] as number) === 0 ? 0 : (answers[(after[place] as number) - 1] as number));
  }
  const thoughtMs = thinkMs.reduce((sum, ms) => sum + ms, 0);
  const workedMs = cpu === undefined ? thoughtMs : Math.max(0, cpu.machineMs - cpu.daemonMs);
  return { chunk, after, thinkMs, cores: thoughtMs === 0 ? 1 : workedMs / thoughtMs };
}
