import type { MessagePort } from 'node:worker_threads';

/** What the reading thread knows of a device. */
export interface ThreadDevice {
  readonly id: number;
  /** `st_dev` and `st_ino` of the data file: how an event names it. */
  readonly filesystem: number;
  readonly inode: number;
  readonly blockCount: number;
  /** The bytes of its BlockMap, shared. */
  readonly presence: Uint8Array<SharedArrayBuffer>;
}

/** Main thread to reading thread; followed by a wake of the eventfd. */
export type Command =
  | { readonly kind: 'attach'; readonly token: number; readonly device: ThreadDevice }
  | { readonly kind: 'forget'; readonly token: number; readonly device: ThreadDevice }
  | { readonly kind: 'stop'; readonly token: number };

/** Why the thread denied a read by itself. */
export type DenyReason = 'malformed event' | 'unknown file' | 'truncate' | 'trap failed' | 'no descriptor left';

/** Reading thread to main thread. */
export type Notice =
  | { readonly kind: 'ready' }
  | { readonly kind: 'done'; readonly token: number }
  /** Cold reads, four numbers each: see FAULT_WORDS. */
  | { readonly kind: 'faults'; readonly words: readonly number[] }
  | { readonly kind: 'denied'; readonly reason: DenyReason; readonly count: number; readonly inode: number }
  | { readonly kind: 'fatal'; readonly message: string };

/** Numbers per fault in a `faults` notice: event descriptor, device id, offset, length. */
export const FAULT_WORDS = 4;

/** Slots of the shared Int32Array. */
export const FLAG = {
  /** 1: deny everything. */
  FAILED: 0,
  /** Event descriptors open in this process. */
  IN_FLIGHT: 1,
  /** 1: the thread reads nothing until IN_FLIGHT falls; wake it then. */
  THROTTLED: 2,
  /** 1: the process ends; leave everything unanswered, for the journal. */
  EXITING: 3,
  COUNT: 4,
} as const;

/** Slots of the shared Float64Array, written by the reading thread only. */
export const COUNTER = { WARM: 0, COLD: 1, DENIED: 2, OWN: 3, COUNT: 4 } as const;

/** What the reading thread starts with. */
export interface ThreadInit {
  readonly group: number;
  readonly wakeFd: number;
  readonly journalFd: number;
  readonly port: MessagePort;
  readonly flags: Int32Array<SharedArrayBuffer>;
  readonly counters: Float64Array<SharedArrayBuffer>;
  readonly maxInFlight: number;
  readonly devices: readonly ThreadDevice[];
}
