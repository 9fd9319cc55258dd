import type { Digest } from '../core/digest.ts';
import { withContext } from '../errors.ts';
import { type ProgramNeeds, programNeeds } from '../image/elf.ts';
import { findInTree } from '../image/find-file.ts';
import { parseStartCommand, type StartCommand } from '../image/image-config.ts';
import type { FileNode, LayerTree } from '../image/layer-tree.ts';
import type { ImageManifest } from '../image/manifest.ts';
import type { Reference } from '../image/reference.ts';
import type { Logger } from '../log.ts';
import type { RegistryClient } from '../source/origin/registry-client.ts';
import type { BlobDevice } from '../store/blob-device.ts';
import type { BlobStore } from '../store/blob-store.ts';

/**
 * Fetches what a container reads first while containerd still prepares it: the program of the image's config, the
 * loader and the libraries it names. A guess: it costs bytes that are wanted anyway, and nothing waits for it.
 */
export interface StartHints {
  /** The image is being pulled. */
  learn(reference: Reference, manifest: Pick<ImageManifest, 'config' | 'layers'>): void;
  /** These layers were merged into `tree`, whose device numbers are places in `on` (else the same list), and mounted. */
  mounted(layers: readonly Digest[], tree: LayerTree, on?: readonly Digest[]): void;
  /** Stops what is under way. Idempotent. */
  stop(): Promise<void>;
}

/** Images whose start command is remembered until they are mounted. */
const KEPT = 256;
/** Bytes fetched for one start at most: a large interpreter with its libraries. */
const MAX_BYTES = 48 * 1024 * 1024;
/** Of a larger program only its beginning is fetched, and its libraries stay unknown. */
const WHOLE_FILE_BYTES = 32 * 1024 * 1024;
const LARGE_FILE_BYTES = 8 * 1024 * 1024;
/** Files followed from one program: more libraries than any image starts with. */
const MAX_FILES = 128;
const DEADLINE_MS = 60_000;
const LIBRARY_DIRS = ['/lib64', '/usr/lib64', '/lib', '/usr/lib', '/usr/local/lib'];

export function createStartHints(components: {
  registry: Pick<RegistryClient, 'config'>;
  blobs: Pick<BlobStore, 'open'>;
  log: Logger;
}): StartHints {
  const { registry, blobs, log } = components;
  const commands = new Map<Digest, Promise<StartCommand>>();
  const stopping = new AbortController();
  const underWay = new Set<Promise<void>>();

  function run(what: string, work: (signal: AbortSignal) => Promise<void>): void {
    const signal = AbortSignal.any([stopping.signal, AbortSignal.timeout(DEADLINE_MS)]);
    const done = work(signal)
      .catch((error) => log.debug(`${what} failed`, { error: withContext(error, {}).describe() }))
      .finally(() => underWay.delete(done));
    underWay.add(done);
  }

  return {
    learn(reference, { config, layers }) {
      if (stopping.signal.aborted || layers.every(({ digest }) => commands.has(digest))) return;
      const signal = AbortSignal.any([stopping.signal, AbortSignal.timeout(DEADLINE_MS)]);
      const known = registry.config(reference, config, { signal }).then(parseStartCommand);
      // by every layer: the topmost ones may be unpacked and not part of the run
      for (const { digest } of layers) commands.set(digest, known);
      run('reading an image config', async () => void (await known));
      for (const oldest of commands.keys()) {
        if (commands.size <= KEPT) break;
        commands.delete(oldest);
      }
    },
    mounted(layers, tree, on = layers) {
      const command = commands.get(layers.at(-1) as Digest);
      if (command === undefined || stopping.signal.aborted) return;
      for (const layer of layers) if (commands.get(layer) === command) commands.delete(layer);
      run('fetching a program ahead', async (signal) => {
        const devices = await Promise.all(on.map((blob) => blobs.open(blob)));
        await new StartFetch(tree, devices, await command, signal).run();
      });
    },
    async stop() {
      stopping.abort();
      await Promise.all(underWay);
    },
  };
}

/** One program with all it loads, fetched file by file. */
class StartFetch {
  readonly #tree: LayerTree;
  readonly #devices: readonly (BlobDevice | undefined)[];
  readonly #command: StartCommand;
  readonly #signal: AbortSignal;
  readonly #seen = new Set<FileNode>();
  #bytesLeft = MAX_BYTES;

  constructor(
    tree: LayerTree,
    devices: readonly (BlobDevice | undefined)[],
    command: StartCommand,
    signal: AbortSignal,
  ) {
    this.#tree = tree;
    this.#devices = devices;
    this.#command = command;
    this.#signal = signal;
  }

  async run(): Promise<void> {
    await Promise.all(this.#command.programs.map((word) => this.#program(word)));
  }

  async #program(word: string): Promise<void> {
    const places = word.includes('/') ? [word] : this.#command.path.map((dir) => `${dir}/${word}`);
    await this.#first(places);
  }

  /** The first of these paths that is a file, and all it needs. */
  async #first(paths: readonly string[]): Promise<void> {
    for (const path of paths) {
      const node = findInTree(this.#tree, path);
      if (node?.kind !== 'file') continue;
      await this.#follow(node, path);
      return;
    }
  }

  async #follow(file: FileNode, path: string): Promise<void> {
    if (this.#seen.has(file) || this.#seen.size >= MAX_FILES) return;
    this.#seen.add(file);
    const length = file.size > WHOLE_FILE_BYTES ? LARGE_FILE_BYTES : file.size;
    if (length > this.#bytesLeft) return;
    this.#bytesLeft -= length;
    const bytes = await this.#fetch(file, length);
    const needs = length === file.size ? programNeeds(bytes) : undefined;
    if (needs !== undefined) await Promise.all(this.#needed(needs, path).map((paths) => this.#first(paths)));
  }

  /** For each thing the program needs, the places where it may be. */
  #needed({ interpreter, names, searchPath, libraryFolder }: ProgramNeeds, path: string): string[][] {
    const origin = path.slice(0, path.lastIndexOf('/'));
    const own = searchPath.map((dir) => dir.replace(/\$ORIGIN|\$\{ORIGIN\}/, origin));
    const common = LIBRARY_DIRS.flatMap((dir) =>
      libraryFolder === undefined ? [dir] : [`${dir}/${libraryFolder}`, dir],
    );
    const isScript = libraryFolder === undefined && searchPath.length === 0 && interpreter !== undefined;
    const dirs = isScript ? this.#command.path : [...own, ...common];
    const places = names.map((name) => (name.includes('/') ? [name] : dirs.map((dir) => `${dir}/${name}`)));
    return interpreter === undefined ? places : [[interpreter], ...places];
  }

  /** The file's first bytes, fetched and read back verified; holes are zeros. */
  async #fetch(file: FileNode, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    await Promise.all(
      file.extents.map(async ({ fileOffset, length: extentLength, device: number, deviceOffset }) => {
        const device = this.#devices[number];
        const wanted = Math.min(extentLength, length - fileOffset);
        if (device === undefined || wanted <= 0) return;
        await device.fill(deviceOffset, wanted, { signal: this.#signal, urgency: 'prefetch' });
        const { first, end } = device.table.covering(deviceOffset, wanted);
        for (let row = first; row < end; row += 1) {
          const chunk = await device.readChunk(row, { signal: this.#signal });
          const at = device.table.row(row).deviceOffset - deviceOffset;
          const from = Math.max(0, -at);
          const part = chunk.bytes.subarray(from, Math.min(chunk.bytes.byteLength, wanted - at));
          bytes.set(part, fileOffset + at + from);
        }
      }),
    );
    return bytes;
  }
}
