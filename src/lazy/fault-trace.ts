import type { Clock } from '../clock.ts';
import type { ControlRoute } from '../control/server.ts';
import type { Digest } from '../core/digest.ts';
import { ShoalError } from '../errors.ts';
import type { BlobDevice } from '../store/blob-device.ts';
import type { Fillable } from '../trap/fault-loop.ts';
import type { CpuTime } from './cpu-time.ts';

/** What a trace is made of: first a line per layer, then one per chunk of each cold read (docs/simulation.md). */
export type TraceLine =
  | {
      readonly kind: 'layer';
      readonly blob: string;
      readonly rows: number;
      readonly bytes: number;
      readonly compressedBytes: number;
    }
  | {
      readonly kind: 'read';
      readonly image: string;
      readonly blob: string;
      readonly row: number;
      readonly digest: string;
      readonly bytes: number;
      readonly compressedBytes: number;
      readonly offset: number;
      readonly atMs: number;
      readonly answeredMs: number;
      /** From the last answer before it to its beginning, ms: what the container did meanwhile. */
      readonly thinkMs: number;
    }
  | {
      /** Came while it was recorded though nobody waited for it: fetched ahead of readers. At the end of the recording. */
      readonly kind: 'ahead';
      readonly image: string;
      readonly blob: string;
      readonly row: number;
      readonly digest: string;
      readonly bytes: number;
      readonly compressedBytes: number;
      readonly offset: number;
    }
  | {
      /** Processor time from the beginning to the last answer, ms, of all processors and of this daemon. Comes last. */
      readonly kind: 'cpu';
      readonly machineMs: number;
      readonly daemonMs: number;
    };

type ChunkLine = Extract<TraceLine, { kind: 'ahead' }>;

/** Records cold reads while somebody wants them; costs a lookup per fault otherwise. */
export interface FaultTrace {
  /** The device, its fills recorded while a recording is on. */
  watch(device: BlobDevice | undefined): Fillable | undefined;
  /** `POST /v1/trace` with `{"do": "start" | "take" | "stop", "image"?}`; each answers the lines since the last. */
  readonly routes: readonly ControlRoute[];
}

/** Lines kept until they are taken, 300 bytes each; beyond, the recording ends with an error. */
const MOST_LINES = 50_000;
/** Between two looks at what processors did: /proc/stat counts in steps of that. */
const CPU_LOOK_MS = 10;
/** Lines of one answer: far below what the control client accepts. */
const LINES_PER_ANSWER = 2_000;

interface Components {
  readonly clock: Pick<Clock, 'nowMs'>;
  /** Names of the images a layer belongs to. */
  readonly imagesOf: (blob: Digest) => readonly string[];
  /** Processor time so far. */
  readonly cpu: () => CpuTime;
}

/** Traces of one daemon. */
export function createFaultTrace(components: Components): FaultTrace {
  let recording: Recording | undefined;

  function handle(body: unknown): { lines: readonly TraceLine[] } {
    const { do: action, image } = (typeof body === 'object' && body !== null ? body : {}) as Record<string, unknown>;
    if (action === 'start') {
      recording = new Recording(components, typeof image === 'string' ? image : undefined);
      return { lines: [] };
    }
    if (action !== 'take' && action !== 'stop') {
      throw new ShoalError('INVALID_ARGUMENT', '"do" must be start, take or stop');
    }
    if (recording === undefined) throw new ShoalError('FAILED_PRECONDITION', 'nothing is being recorded');
    if (action === 'stop') recording.end();
    const lines = recording.take(LINES_PER_ANSWER);
    if (action === 'stop' && lines.length < LINES_PER_ANSWER) recording = undefined;
    return { lines };
  }

  return {
    watch(device) {
      return device === undefined || recording === undefined ? device : recording.watch(device);
    },
    routes: [{ method: 'POST', path: '/v1/trace', handle: ({ body }) => handle(body) }],
  };
}

/** A layer of the recording. */
interface Watched {
  readonly device: BlobDevice;
  readonly image: string;
  /** Rows that were there before, or have a line. */
  readonly told: Set<number>;
}

class Recording {
  readonly #clock: Pick<Clock, 'nowMs'>;
  readonly #imagesOf: (blob: Digest) => readonly string[];
  readonly #cpu: () => CpuTime;
  readonly #cpuBefore: CpuTime;
  readonly #image: string | undefined;
  readonly #beganMs: number;
  readonly #watched = new Map<Digest, Watched>();
  #isEnded = false;
  #lines: TraceLine[] = [];
  #lastAnswerMs = 0;
  #cpuAfter: CpuTime;
  #cpuAtMs = 0;
  #isOverfull = false;

  constructor(components: Components, image: string | undefined) {
    this.#clock = components.clock;
    this.#imagesOf = components.imagesOf;
    this.#cpu = components.cpu;
    this.#cpuBefore = this.#cpu();
    this.#cpuAfter = this.#cpuBefore;
    this.#image = image;
    this.#beganMs = this.#clock.nowMs();
  }

  watch(device: BlobDevice): Fillable {
    const images = this.#imagesOf(device.blob);
    if (this.#image !== undefined && !images.includes(this.#image)) return device;
    const image = this.#image ?? images[0] ?? '';
    this.#open(device, image);
    return {
      name: device.name,
      fill: async (offset, length, options) => {
        const atMs = this.#nowMs();
        const thinkMs = atMs - this.#lastAnswerMs;
        await device.fill(offset, length, options);
        this.#lastAnswerMs = this.#nowMs();
        if (this.#lastAnswerMs - this.#cpuAtMs >= CPU_LOOK_MS) {
          this.#cpuAfter = this.#cpu();
          this.#cpuAtMs = this.#lastAnswerMs;
        }
        this.#note(device, { offset, length, atMs, thinkMs, image });
      },
    };
  }

  /** Adds what came ahead of readers, and what the processors did. */
  end(): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    for (const { device, image, told } of this.#watched.values()) {
      for (let row = 0; row < device.table.count; row += 1) {
        if (!told.has(row) && device.hasChunk(row)) this.#push(chunkLine(device, row, image));
      }
    }
    const [before, after] = [this.#cpuBefore, this.#cpuAfter];
    const machineMs = after.machineMs - before.machineMs;
    if (machineMs > 0) this.#push({ kind: 'cpu', machineMs, daemonMs: after.daemonMs - before.daemonMs });
  }

  take(most: number): readonly TraceLine[] {
    if (this.#isOverfull) {
      throw new ShoalError(
        'TOO_LARGE',
        `more than ${MOST_LINES} reads were recorded and not taken; nothing is complete`,
      );
    }
    return this.#lines.splice(0, most);
  }

  #nowMs(): number {
    return Math.round((this.#clock.nowMs() - this.#beganMs) * 1_000) / 1_000;
  }

  #note(
    device: BlobDevice,
    read: { offset: number; length: number; atMs: number; thinkMs: number; image: string },
  ): void {
    const watched = this.#open(device, read.image);
    const { atMs, thinkMs, image } = read;
    const { first, end } = device.table.covering(read.offset, read.length);
    for (let row = first; row < end; row += 1) {
      watched.told.add(row);
      const line = { ...chunkLine(device, row, image), kind: 'read' } as const;
      this.#push({ ...line, atMs, answeredMs: this.#lastAnswerMs, thinkMs: Math.max(0, thinkMs) });
    }
  }

  #open(device: BlobDevice, image: string): Watched {
    const { blob, table, info } = device;
    const known = this.#watched.get(blob);
    if (known !== undefined) return known;
    const { count: rows, dataBytes: bytes } = table;
    this.#push({ kind: 'layer', blob, rows, bytes, compressedBytes: info.size });
    const told = new Set<number>();
    for (let row = 0; row < rows; row += 1) if (device.hasChunk(row)) told.add(row);
    const made = { device, image, told };
    this.#watched.set(blob, made);
    return made;
  }

  #push(line: TraceLine): void {
    if (this.#lines.length >= MOST_LINES) this.#isOverfull = true;
    else this.#lines.push(line);
  }
}

function chunkLine({ blob, table }: BlobDevice, row: number, image: string): ChunkLine {
  const { digest, length: bytes, deviceOffset: offset, extent } = table.row(row);
  // Chunks of one extent share what it costs.
  const { length: extentBytes, decodedLength } = table.extent(extent);
  const compressedBytes = Math.max(1, Math.round((extentBytes * bytes) / Math.max(bytes, decodedLength)));
  return { kind: 'ahead', image, blob, row, digest, bytes, compressedBytes, offset };
}
