import { readFileSync } from 'node:fs';
import { type Digest, parseDigest } from '../core/digest.ts';
import type { TextDb } from './text-db.ts';

/** What must be known about a mounted run after a restart. */
export interface RunRecord {
  readonly name: string;
  readonly layers: readonly Digest[];
  /** The devices it is mounted on, where they are not the layers. */
  readonly devices?: readonly Digest[];
  readonly bottom: boolean;
  /** The mount's superblock in /sys/fs/erofs: tells whether its file system still lives. Null until it is mounted. */
  readonly sysfsName: string | null;
  /** Mounted when every layer was complete, past the page cache of the devices. */
  readonly direct: boolean;
  /** True when only those who still read from it keep it alive. */
  readonly released?: true;
}

/** The runs on record, in the daemon's database. */
export interface RunRecords {
  put(record: RunRecord): Promise<void>;
  get(name: string): Promise<RunRecord | undefined>;
  remove(name: string): Promise<void>;
  list(): Promise<readonly RunRecord[]>;
}

/** Names of superblocks start anew with the kernel: a record of another boot tells nothing about what lives now. */
const BOOT_ID = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();

/** Keeps run records in a level database; records that can't be read are dropped. */
export function createRunRecords(db: TextDb): RunRecords {
  return {
    async put(record) {
      await db.put(record.name, JSON.stringify({ ...record, boot: BOOT_ID }));
    },
    async get(name) {
      const text = await db.get(name);
      return text === undefined ? undefined : parseRecord(name, text);
    },
    async remove(name) {
      await db.del(name);
    },
    async list() {
      const records: RunRecord[] = [];
      for await (const [name, text] of db.iterator()) {
        const record = parseRecord(name, text);
        if (record === undefined) await db.del(name);
        else records.push(record);
      }
      return records;
    },
  };
}

function parseRecord(name: string, text: string): RunRecord | undefined {
  try {
    const value = JSON.parse(text) as {
      layers: unknown[];
      devices?: unknown[];
      bottom: unknown;
      sysfsName: unknown;
      released: unknown;
      direct: unknown;
      boot: unknown;
    };
    if (!/^[sm][0-9]+$/.test(name)) return undefined;
    return {
      name,
      layers: value.layers.map(parseDigest),
      ...(value.devices === undefined ? {} : { devices: value.devices.map(parseDigest) }),
      bottom: value.bottom === true,
      ...(value.released === true ? { released: true } : {}),
      direct: value.direct === true,
      sysfsName: typeof value.sysfsName === 'string' && value.boot === BOOT_ID ? value.sysfsName : null,
    };
  } catch {
    return undefined;
  }
}
