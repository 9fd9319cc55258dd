import { FAN } from '../../kernel/fanotify.ts';

const RANGE_RECORD_BYTES = 24;
const WHOLE_FILE = Number.MAX_SAFE_INTEGER;
/** Where an event names its descriptor. */
const FD_AT = 16;

/** One pre-content event, decoded in place: the same object is reused for every event. */
export interface PreContentEvent {
  mask: number;
  /** Descriptor of the file, which is also the key of the answer; negative when there is none. */
  fd: number;
  /** Process that reads, as seen from here. */
  pid: number;
  /** First byte; 0 when the event names no range. */
  offset: number;
  /** Bytes; 0 for a truncate to `offset`, MAX_SAFE_INTEGER when the event names no range: the whole file. */
  length: number;
  /** False when the records after the header make no sense: this event is to be denied. */
  wellFormed: boolean;
}

/** An event object for `decodeEvent` to fill. */
export function emptyEvent(): PreContentEvent {
  return { mask: 0, fd: -1, pid: 0, offset: 0, length: 0, wellFormed: false };
}

/**
 * Decodes the event at byte `at` of what read(2) returned, `end` bytes in all, and returns where the next one starts;
 * -1 when the header itself is broken, so that nothing after it can be trusted (fanotify(7), struct
 * fanotify_event_metadata and fanotify_event_info_range). Allocates nothing.
 */
export function decodeEvent(view: DataView, at: number, end: number, event: PreContentEvent): number {
  if (end - at < FAN.METADATA_BYTES) return -1;
  const next = at + view.getUint32(at, true);
  const records = at + view.getUint16(at + 6, true);
  if (next > end || records > next || records < at + FAN.METADATA_BYTES) return -1;
  if (view.getUint8(at + 4) !== FAN.METADATA_VERSION) return -1;
  event.mask = view.getUint32(at + 8, true);
  event.fd = view.getInt32(at + FD_AT, true);
  event.pid = view.getInt32(at + 20, true);
  event.offset = 0;
  event.length = WHOLE_FILE;
  event.wellFormed = decodeRange(view, records, next, event);
  return next;
}

/** Makes the event at byte `at` one without a descriptor: it is recorded elsewhere, or answered. */
export function markHandled(view: DataView, at: number): void {
  view.setInt32(at + FD_AT, -1, true);
}

function decodeRange(view: DataView, records: number, end: number, event: PreContentEvent): boolean {
  let seen = false;
  for (let at = records; at < end; ) {
    if (end - at < 4) return false;
    const length = view.getUint16(at + 2, true);
    if (length < 4 || at + length > end) return false;
    if (view.getUint8(at) === FAN.EVENT_INFO_TYPE_RANGE) {
      if (seen || length !== RANGE_RECORD_BYTES) return false;
      seen = true;
      event.offset = uint64(view, at + 8);
      event.length = uint64(view, at + 16);
      if (!Number.isSafeInteger(event.offset) || !Number.isSafeInteger(event.offset + event.length)) return false;
    }
    at += length;
  }
  return true;
}

function uint64(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
}
