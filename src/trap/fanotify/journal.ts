import { ftruncateSync } from 'node:fs';
import { syscall, syscallRaw } from '../../kernel/libc.ts';
import { mapShared } from '../../kernel/mmap.ts';
import { decodeEvent, emptyEvent, markHandled } from './event.ts';

const MFD_CLOEXEC = 1;
const MAGIC = 0x53_48_4a_32; // "SHJ2"
const HEADER_BYTES = 64;
const SLOT_WORDS = 5;
/** Room for 64 events with their range. */
const BATCH_BYTES = 64 * 48;

type Slot = [filesystem: number, inode: number, offset: number, length: number];

/** An event that was read from the group and not answered yet. */
export interface JournalEntry {
  /** Number of the event's descriptor in the process that read it: the key of the answer. */
  readonly eventFd: number;
  /** `st_dev` and `st_ino` of the file; both 0 when the daemon was killed before it could look at it. */
  readonly filesystem: number;
  readonly inode: number;
  /** First byte and bytes, as the kernel named them for a file that is not known, else whole blocks. */
  readonly offset: number;
  readonly length: number;
}

/**
 * Which events were read and not yet answered, in memory that the keeper holds: it outlives the daemon, not the machine,
 * and no disk write can ever delay a fault. One slot per descriptor number, and the batch that was read last: the kernel
 * writes it here itself, so that no event is lost by who is killed between read(2) and `record`.
 */
export interface Journal {
  readonly fd: number;
  readonly slots: number;
  /** Where the thread that reads has read(2) put events; each is marked once it is recorded or answered (event.ts). */
  readonly batch: Uint8Array;
  /** Called by the thread that reads, at once after the read. A number past the last slot is not recorded. */
  record(eventFd: number, filesystem: number, inode: number, offset: number, length: number): void;
  /** Called after the answer was written and before the descriptor is closed. */
  clear(eventFd: number): void;
  /** Gives the events of the batch that nobody handled slots of their own, their file unknown, and empties the batch. */
  recordBatch(): void;
  /** Everything unanswered that has a slot. */
  entries(): JournalEntry[];
  /** Unmaps; the descriptor stays with its owner. */
  unmap(): void;
}

/** The descriptor of a fresh journal for event descriptors 0 to `slots` - 1 (memfd_create(2)); throws KERNEL_CALL. */
export function createJournalFd(slots: number): number {
  const fd = syscall('memfd_create', 'shoal-journal', MFD_CLOEXEC);
  ftruncateSync(fd, sizeWith(slots));
  const header = mapShared(fd, HEADER_BYTES);
  new Uint32Array(header.bytes.buffer).set([MAGIC, slots]);
  header.unmap();
  return fd;
}

/** Maps a journal made by `createJournalFd`, in any process or thread; undefined when `fd` is something else. */
export function openJournal(fd: number): Journal | undefined {
  const size = syscallRaw('lseek', fd, 0, 2);
  if (size < HEADER_BYTES) return undefined;
  const header = mapShared(fd, HEADER_BYTES);
  const [magic, slots] = new Uint32Array(header.bytes.buffer, 0, 2) as unknown as [number, number];
  header.unmap();
  if (magic !== MAGIC || size !== sizeWith(slots)) return undefined;
  return mapJournal(fd, slots, size);
}

function sizeWith(slots: number): number {
  return HEADER_BYTES + slots * SLOT_WORDS * 8 + BATCH_BYTES;
}

function mapJournal(fd: number, slots: number, size: number): Journal {
  const mapping = mapShared(fd, size);
  const words = new Float64Array(mapping.bytes.buffer, HEADER_BYTES, slots * SLOT_WORDS);
  const batch = new Uint8Array(mapping.bytes.buffer, size - BATCH_BYTES, BATCH_BYTES);
  const journal: Journal = {
    fd,
    slots,
    batch,
    recordBatch() {
      const event = emptyEvent();
      const view = new DataView(batch.buffer, batch.byteOffset, BATCH_BYTES);
      for (let at = 0; at >= 0 && at < BATCH_BYTES; ) {
        const start = at;
        at = decodeEvent(view, at, BATCH_BYTES, event);
        // a truncate, which nobody may, has no length
        if (at < 0 || event.fd < 0 || !event.wellFormed || event.length === 0) continue;
        if (words[event.fd * SLOT_WORDS] !== 1) journal.record(event.fd, 0, 0, event.offset, event.length);
        markHandled(view, start);
      }
      batch.fill(0);
    },
    record(eventFd, filesystem, inode, offset, length) {
      if (eventFd >= slots) return;
      const at = eventFd * SLOT_WORDS;
      words[at + 1] = filesystem;
      words[at + 2] = inode;
      words[at + 3] = offset;
      words[at + 4] = length;
      words[at] = 1; // last: a slot counts only when it is whole
    },
    clear(eventFd) {
      if (eventFd < slots) words[eventFd * SLOT_WORDS] = 0;
    },
    entries() {
      const found: JournalEntry[] = [];
      for (let eventFd = 0; eventFd < slots; eventFd += 1) {
        const at = eventFd * SLOT_WORDS;
        if (words[at] !== 1) continue;
        const [filesystem, inode, offset, length] = words.subarray(at + 1, at + 5) as unknown as Slot;
        found.push({ eventFd, filesystem, inode, offset, length });
      }
      return found;
    },
    unmap: () => mapping.unmap(),
  };
  return journal;
}
