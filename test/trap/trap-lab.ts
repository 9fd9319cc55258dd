import assert from 'node:assert/strict';
import { writeSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { systemClock } from '../../src/clock.ts';
import { BLOCK_BYTES } from '../../src/core/block-map.ts';
import { ShoalError } from '../../src/errors.ts';
import { type Logger, silentLogger } from '../../src/log.ts';
import { createFaultLoop, type FaultLoop } from '../../src/trap/fault-loop.ts';
import type { KernelTrap } from '../../src/trap/trap.ts';
import {
  type LabDevice,
  type LabImage,
  labDirectory,
  makeImage,
  mountImage,
  openDevice,
  run,
  unmount,
} from './erofs-lab.ts';
import { patternBytes } from './pattern.ts';

const READER = fileURLToPath(new URL('./reader.ts', import.meta.url));

/** Makes the trap under test. */
export type MakeTrap = (components: { log: Logger }, init: { runDir: string }) => Promise<KernelTrap>;

/** Where the bytes come from in a test, and how it behaves. */
export interface LabSource {
  mode: 'good' | 'broken' | 'silent';
  delayMs: number;
  fills: number;
}

/** One lazily served image, mounted. */
export interface LazyImage {
  readonly image: LabImage;
  readonly device: LabDevice;
  readonly source: LabSource;
  readonly mountpoint: string;
  file(name: string): string;
}

/** A trap with its fault loop and any number of lazy images; everything is undone at disposal. */
export class TrapLab implements AsyncDisposable {
  readonly directory: ReturnType<typeof labDirectory>;
  readonly trap: KernelTrap;
  readonly loop: FaultLoop;
  readonly #images: LazyImage[] = [];

  private constructor(trap: KernelTrap, directory: TrapLab['directory'], deadlineMs: number) {
    this.trap = trap;
    this.directory = directory;
    const device = (id: number): ReturnType<typeof fillable> | undefined => {
      const found = this.#images.find((image) => image.device.id === id);
      return found === undefined ? undefined : fillable(found);
    };
    this.loop = createFaultLoop({ trap, device, log: silentLogger, clock: systemClock }, { deadlineMs });
  }

  /** A started trap whose run directory is `<directory>/run`. */
  static async create(makeTrap: MakeTrap, { deadlineMs = 10_000 } = {}): Promise<TrapLab> {
    const directory = labDirectory();
    const trap = await makeTrap({ log: silentLogger }, { runDir: join(directory.path, 'run') });
    await trap.start();
    return new TrapLab(trap, directory, deadlineMs);
  }

  /** Makes an image of files of these sizes (file i has pattern seed i + 1), attaches and mounts it. */
  async serve(sizes: readonly number[]): Promise<LazyImage> {
    const id = this.#images.length + 1;
    const home = labDirectory();
    const files = new Map(sizes.map((size, index) => [`f${index}`, patternBytes(index + 1, 0, size)]));
    const image = await makeImage(home.path, files);
    const size = Math.ceil(image.data.length / BLOCK_BYTES) * BLOCK_BYTES;
    const name = id.toString(16).padStart(64, '0');
    const device = openDevice({ id, name, path: join(home.path, 'device'), size });
    const mountpoint = join(home.path, 'mnt');
    const source: LabSource = { mode: 'good', delayMs: 0, fills: 0 };
    const lazy: LazyImage = { image, device, source, mountpoint, file: (file) => join(mountpoint, file) };
    this.#images.push(lazy);
    this.#homes.push(home);
    await mountImage(image.meta, await this.trap.attach(device), mountpoint);
    return lazy;
  }
  readonly #homes: { remove(): void }[] = [];

  /** Ends the trap and the mounts; what is left on disk stays until disposal. */
  async stop(): Promise<void> {
    for (const { mountpoint } of this.#images) await unmount(mountpoint);
    await this.trap.close();
    await this.loop.done;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { source } of this.#images) source.mode = 'broken';
    this.loop.stop();
    for (const { mountpoint } of this.#images) await unmount(mountpoint, { lazy: true });
    await this.trap.close();
    for (const { device } of this.#images) device.close();
    for (const home of this.#homes) home.remove();
    this.directory.remove();
  }
}

function fillable({ device, image, source }: LazyImage): Parameters<typeof createFaultLoop>[0] extends {
  device(id: number): infer F;
}
  ? NonNullable<F>
  : never {
  return {
    name: device.name,
    async fill(offset, length, { signal }) {
      source.fills += 1;
      if (source.mode === 'broken') throw new ShoalError('SOURCE_FAILED', 'the source is broken');
      if (source.mode === 'silent') await delay(3_600_000, undefined, { signal });
      if (source.delayMs > 0) await delay(source.delayMs, undefined, { signal });
      writeSync(device.fd, image.data.subarray(offset, offset + length), 0, undefined, offset);
      device.presence.setRange(offset / BLOCK_BYTES, (offset + length) / BLOCK_BYTES);
    },
  };
}

/** What a reader process found. */
export interface ReaderReport {
  readonly reads: number;
  readonly wrong: number;
  readonly errors: number;
}

/** Runs test/trap/reader.ts to its end. */
export async function reader(...args: (string | number)[]): Promise<ReaderReport> {
  const { code, out, err } = await run(process.execPath, [READER, ...args.map(String)]);
  assert.equal(code, 0, err);
  return JSON.parse(out.toString()) as ReaderReport;
}

/** cmp(1) of a lazily mounted file with the one it was made of: 0 when equal, 1 when not, 2 on an error. */
export async function compare(lazy: LazyImage, name: string): Promise<number | null> {
  return (await run('cmp', ['-s', lazy.file(name), join(lazy.image.source, name)])).code;
}

/** Empties the page cache, so that reads reach the trap again. */
export async function dropPageCache(): Promise<void> {
  await writeFile('/proc/sys/vm/drop_caches', '1');
}

/** Waits until `ready` holds; fails after `timeoutMs`. */
export async function until(ready: () => boolean, timeoutMs = 10_000): Promise<void> {
  const end = performance.now() + timeoutMs;
  while (!ready()) {
    assert.ok(performance.now() < end, 'waited too long');
    await delay(5);
  }
}
