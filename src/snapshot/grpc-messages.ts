import { type MethodDefinition, type ServiceDefinition, status } from '@grpc/grpc-js';
import { loadFileDescriptorSetFromBuffer } from '@grpc/proto-loader';
import { type ErrorCode, ShoalError } from '../errors.ts';
import { SNAPSHOTS_DESCRIPTOR_SET } from '../gen/containerd-snapshots.ts';
import type { Mount } from './mounts.ts';
import type { Labels, SnapshotInfo, SnapshotKind, Timestamp, Usage } from './snapshot-info.ts';

/** The methods of the service. */
export const METHODS = [
  'Prepare',
  'View',
  'Mounts',
  'Commit',
  'Remove',
  'Stat',
  'Update',
  'List',
  'Usage',
  'Cleanup',
] as const;

/** A message as proto-loader gives and takes it; what is in it is for the parsers below to find out. */
export type Message = Readonly<Record<string, unknown>>;

/** The service with its messages undecided. */
export type SnapshotsService = ServiceDefinition &
  Readonly<Record<(typeof METHODS)[number], MethodDefinition<Message, Message>>>;

/** containerd.services.snapshots.v1.Snapshots, from the committed descriptor. */
export function loadSnapshotsService(): SnapshotsService {
  const loaded = loadFileDescriptorSetFromBuffer(Buffer.from(SNAPSHOTS_DESCRIPTOR_SET, 'base64'), {
    longs: Number,
    enums: Number,
    defaults: true,
    arrays: true,
    objects: true,
  });
  return loaded['containerd.services.snapshots.v1.Snapshots'] as unknown as SnapshotsService;
}

const KINDS: readonly SnapshotKind[] = ['view', 'active', 'committed'];

/** gRPC status of every error code, one to one where containerd has the same word. */
const STATUS: Readonly<Record<ErrorCode, status>> = {
  INVALID_ARGUMENT: status.INVALID_ARGUMENT,
  NOT_FOUND: status.NOT_FOUND,
  ALREADY_EXISTS: status.ALREADY_EXISTS,
  FAILED_PRECONDITION: status.FAILED_PRECONDITION,
  UNAVAILABLE: status.UNAVAILABLE,
  INVALID_DIGEST: status.INVALID_ARGUMENT,
  INVALID_REFERENCE: status.INVALID_ARGUMENT,
  INVALID_MANIFEST: status.UNAVAILABLE,
  INVALID_LAYER: status.UNAVAILABLE,
  INVALID_CHUNK_TABLE: status.UNAVAILABLE,
  UNSUPPORTED_LAYER: status.UNAVAILABLE,
  TOO_LARGE: status.UNAVAILABLE,
  CHUNK_CORRUPT: status.UNAVAILABLE,
  CHUNK_MISSING: status.UNAVAILABLE,
  SOURCE_FAILED: status.UNAVAILABLE,
  REGISTRY_RESPONSE: status.UNAVAILABLE,
  RANGE_MISMATCH: status.UNAVAILABLE,
  AUTH_REFUSED: status.UNAVAILABLE,
  URL_REFUSED: status.UNAVAILABLE,
  DEADLINE_EXCEEDED: status.DEADLINE_EXCEEDED,
  PEER_PROTOCOL: status.INTERNAL,
  CONFIG_INVALID: status.FAILED_PRECONDITION,
  KERNEL_CALL: status.INTERNAL,
  TRAP_UNAVAILABLE: status.UNAVAILABLE,
  MOUNT_FAILED: status.UNAVAILABLE,
  STATE_CORRUPT: status.DATA_LOSS,
  STORE_IO: status.INTERNAL,
};

/** Characters of an error text; it travels as a header, and a name in it may have 32 KiB. */
const MAX_DETAILS_LENGTH = 1024;

/** Any error as a gRPC status: the only place where codes are translated. */
export function statusOf(error: unknown): { code: status; details: string } {
  const known = error instanceof ShoalError;
  const details = known ? error.describe() : error instanceof Error ? error.message : String(error);
  return { code: known ? STATUS[error.code] : status.INTERNAL, details: details.slice(0, MAX_DETAILS_LENGTH) };
}

/** A string field; absent means empty. Throws INVALID_ARGUMENT. */
export function textOf(message: Message, field: string): string {
  const value = message[field] ?? '';
  if (typeof value !== 'string') throw invalid(field, 'a string');
  return value;
}

/** A repeated string field. Throws INVALID_ARGUMENT. */
export function textsOf(message: Message, field: string): readonly string[] {
  const value = message[field] ?? [];
  if (!Array.isArray(value) || !value.every((item) => typeof item === 'string')) throw invalid(field, 'strings');
  return value;
}

/** A message field; absent means one with nothing set. Throws INVALID_ARGUMENT. */
export function messageOf(message: Message, field: string): Message {
  const value = message[field] ?? {};
  if (typeof value !== 'object') throw invalid(field, 'a message');
  return value as Message;
}

/** The `labels` map: on the wire, and as the descriptor has it, a list of entries. The last of equal keys wins. */
export function labelsOf(message: Message): Labels {
  const entries = message.labels ?? [];
  if (!Array.isArray(entries)) throw invalid('labels', 'entries');
  return new Map(entries.map((entry: Message) => [textOf(entry, 'key'), textOf(entry, 'value')]));
}

/** Mounts as messages. */
export function mountsMessage(mounts: readonly Mount[]): Message {
  return { mounts };
}

/** Usage as a message. */
export function usageMessage({ sizeBytes, inodes }: Usage): Message {
  return { size: sizeBytes, inodes };
}

/** A snapshot as an `Info` message. */
export function infoMessage(info: SnapshotInfo): Message {
  return {
    name: info.name,
    parent: info.parent,
    kind: KINDS.indexOf(info.kind) + 1,
    created_at: info.created,
    updated_at: info.updated,
    labels: Array.from(info.labels, ([key, value]) => ({ key, value })),
  };
}

/** What an `Info` message says: the other direction, for clients. Throws INVALID_ARGUMENT. */
export function infoOf(message: Message): SnapshotInfo {
  const kind = KINDS[Number(message.kind) - 1];
  if (kind === undefined) throw invalid('kind', 'a kind of snapshot');
  return {
    name: textOf(message, 'name'),
    parent: textOf(message, 'parent'),
    kind,
    created: timestampOf(messageOf(message, 'created_at')),
    updated: timestampOf(messageOf(message, 'updated_at')),
    labels: labelsOf(message),
  };
}

/** Upper bound of the size of an `Info` message in bytes, for filling replies: UTF-16 units are at most 3 bytes. */
export function infoSizeBound(info: SnapshotInfo): number {
  let units = info.name.length + info.parent.length;
  for (const [key, value] of info.labels) units += key.length + value.length + 4;
  return units * 3 + 64;
}

function timestampOf(message: Message): Timestamp {
  return { seconds: Number(message.seconds ?? 0), nanos: Number(message.nanos ?? 0) };
}

function invalid(field: string, expected: string): ShoalError {
  return new ShoalError('INVALID_ARGUMENT', `field ${field} of the request is not ${expected}`);
}
