import { Client, credentials, type ServiceError, type status } from '@grpc/grpc-js';
import {
  infoOf,
  loadSnapshotsService,
  type Message,
  messageOf,
  type SnapshotsService,
} from '../../src/snapshot/grpc-messages.ts';
import type { Mount } from '../../src/snapshot/mounts.ts';
import type { SnapshotInfo, Usage } from '../../src/snapshot/snapshot-info.ts';

export type LabelList = Readonly<Record<string, string>>;

/** A containerd-like client of the snapshots socket, for tests: every call ends within 30 s. */
export interface SnapshotsClient {
  prepare(key: string, parent: string, labels?: LabelList): Promise<Mount[]>;
  view(key: string, parent: string, labels?: LabelList): Promise<Mount[]>;
  mounts(key: string): Promise<Mount[]>;
  commit(name: string, key: string, labels?: LabelList, parent?: string): Promise<void>;
  remove(key: string): Promise<void>;
  stat(key: string): Promise<SnapshotInfo>;
  update(info: { name: string; parent?: string; labels: LabelList }, paths: readonly string[]): Promise<SnapshotInfo>;
  list(filters?: readonly string[]): AsyncIterable<SnapshotInfo>;
  usage(key: string): Promise<Usage>;
  cleanup(): Promise<void>;
  /** Any method with any message. */
  call(method: keyof SnapshotsService & string, request: Message, options?: { timeoutMs?: number }): Promise<Message>;
  close(): void;
}

const TIMEOUT_MS = 30_000;

/** Connects lazily to the socket. */
export function connectSnapshots(socket: string): SnapshotsClient {
  const service = loadSnapshotsService();
  const client = new Client(`unix:${socket}`, credentials.createInsecure(), { 'grpc.default_authority': 'localhost' });

  const call: SnapshotsClient['call'] = (method, request, options = {}) => {
    const { path, requestSerialize, responseDeserialize } = service[method] as SnapshotsService['Stat'];
    const deadline = Date.now() + (options.timeoutMs ?? TIMEOUT_MS);
    return new Promise((resolve, reject) => {
      client.makeUnaryRequest(path, requestSerialize, responseDeserialize, request, { deadline }, (error, reply) =>
        error === null ? resolve(reply ?? {}) : reject(error),
      );
    });
  };
  const mountsFrom = (reply: Message): Mount[] => reply.mounts as Mount[];

  return {
    call,
    prepare: async (key, parent, labels = {}) =>
      mountsFrom(await call('Prepare', { key, parent, labels: entries(labels) })),
    view: async (key, parent, labels = {}) => mountsFrom(await call('View', { key, parent, labels: entries(labels) })),
    mounts: async (key) => mountsFrom(await call('Mounts', { key })),
    commit: async (name, key, labels = {}, parent = '') => {
      await call('Commit', { name, key, labels: entries(labels), parent });
    },
    remove: async (key) => {
      await call('Remove', { key });
    },
    stat: async (key) => infoOf(messageOf(await call('Stat', { key }), 'info')),
    update: async (info, paths) => {
      const message = { name: info.name, parent: info.parent ?? '', labels: entries(info.labels) };
      return infoOf(messageOf(await call('Update', { info: message, update_mask: { paths } }), 'info'));
    },
    async *list(filters = []) {
      const { path, requestSerialize, responseDeserialize } = service.List;
      const stream = client.makeServerStreamRequest(
        path,
        requestSerialize,
        responseDeserialize,
        { filters },
        {
          deadline: Date.now() + TIMEOUT_MS,
        },
      );
      for await (const reply of stream) for (const info of (reply as Message).info as Message[]) yield infoOf(info);
    },
    usage: async (key) => {
      const { size, inodes } = await call('Usage', { key });
      return { sizeBytes: Number(size), inodes: Number(inodes) };
    },
    cleanup: async () => {
      await call('Cleanup', {});
    },
    close: () => client.close(),
  };
}

/** True when `error` came with this gRPC status. */
export function hasStatus(error: unknown, code: status): boolean {
  return (error as ServiceError).code === code;
}

function entries(labels: LabelList): { key: string; value: string }[] {
  return Object.entries(labels).map(([key, value]) => ({ key, value }));
}
