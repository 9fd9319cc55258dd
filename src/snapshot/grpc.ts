import { createServer, type Socket } from 'node:net';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import type { Logger } from '../log.ts';
import { listenPrivately } from '../unix-socket.ts';
import { streaming, unary } from './grpc-calls.ts';
import {
  infoMessage,
  labelsOf,
  loadSnapshotsService,
  type Message,
  messageOf,
  mountsMessage,
  textOf,
  textsOf,
  usageMessage,
} from './grpc-messages.ts';
import type { Snapshotter } from './snapshotter.ts';

/** Limits of the snapshots socket (S12): what one client, containerd, needs with room to spare. */
export const GRPC_LIMITS = {
  /** gRPC's own default, which containerd keeps. */
  messageBytes: 4 * 1024 * 1024,
  streamsPerConnection: 100,
  connections: 32,
  /** Calls that only touch the store; a List that nobody reads ends after it too. */
  storeDeadlineMs: 10_000,
  /** View and Mounts may have to read a layer's index from a registry. */
  lazyDeadlineMs: 60_000,
  /** Prepare may have to read a whole layer; it gives up much earlier when nothing comes. */
  pullDeadlineMs: 1_860_000,
  /** Commit, Remove, Usage and Cleanup walk directories. */
  walkDeadlineMs: 600_000,
} as const;

/** How long the last calls may take at the end. */
const DRAIN_MS = 5_000;

/** The socket containerd talks to. */
export interface SnapshotsServer {
  /** Ends after the calls under way, or cuts them after 5 s; removes the socket. Idempotent. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Serves containerd.services.snapshots.v1 on a unix socket that only its owner may open. Throws what `listenPrivately`
 * throws.
 */
export async function serveSnapshots(
  components: { readonly snapshotter: Snapshotter; readonly log: Logger },
  init: { readonly socket: string },
): Promise<SnapshotsServer> {
  const { messageBytes, streamsPerConnection } = GRPC_LIMITS;
  const server = new Server({
    'grpc.max_receive_message_length': messageBytes,
    'grpc.max_send_message_length': messageBytes,
    'grpc.max_concurrent_streams': streamsPerConnection,
  });
  server.addService(loadSnapshotsService(), handlers(components));
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
  const sockets = new Set<Socket>();
  const listener = createServer((socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    // A reset of the connection is the client's business.
    socket.on('error', () => {});
    injector.injectConnection(socket);
  });
  listener.maxConnections = GRPC_LIMITS.connections;
  await listenPrivately(listener, init.socket);
  listener.on('error', (error) => components.log.error('the snapshots socket failed', { error: error.message }));

  let closing: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    const closed = new Promise<void>((resolve) => listener.close(() => resolve()));
    injector.drain(DRAIN_MS);
    const timer = setTimeout(() => {
      for (const socket of sockets) socket.destroy();
    }, DRAIN_MS);
    await closed;
    clearTimeout(timer);
    injector.destroy();
    server.forceShutdown();
  };
  const closeOnce = (): Promise<void> => {
    closing ??= close();
    return closing;
  };
  return { close: closeOnce, [Symbol.asyncDispose]: closeOnce };
}

function handlers({ snapshotter, log }: { snapshotter: Snapshotter; log: Logger }) {
  const store = { log, deadlineMs: GRPC_LIMITS.storeDeadlineMs };
  const lazy = { log, deadlineMs: GRPC_LIMITS.lazyDeadlineMs };
  const pull = { log, deadlineMs: GRPC_LIMITS.pullDeadlineMs };
  const walk = { log, deadlineMs: GRPC_LIMITS.walkDeadlineMs };
  return {
    Prepare: unary(pull, async (m, o) => mountsMessage(await snapshotter.prepare(parseSnapshotRequest(m), o))),
    View: unary(lazy, async (m, o) => mountsMessage(await snapshotter.view(parseSnapshotRequest(m), o))),
    Mounts: unary(lazy, async (m, o) => mountsMessage(await snapshotter.mounts(textOf(m, 'key'), o))),
    Commit: unary(walk, async (m, o) => {
      await snapshotter.commit(parseCommit(m), o);
      return {};
    }),
    Remove: unary(walk, async (m) => {
      await snapshotter.remove(textOf(m, 'key'));
      return {};
    }),
    Stat: unary(store, (m) => ({ info: infoMessage(snapshotter.stat(textOf(m, 'key'))) })),
    Update: unary(store, async (m) => {
      const { change, paths } = parseUpdate(m);
      return { info: infoMessage(await snapshotter.update(change, paths)) };
    }),
    List: streaming(store, (m) => snapshotter.list(textsOf(m, 'filters'))),
    Usage: unary(walk, async (m, o) => usageMessage(await snapshotter.usage(textOf(m, 'key'), o))),
    Cleanup: unary(walk, async (_m, o) => {
      await snapshotter.cleanup(o);
      return {};
    }),
  };
}

function parseSnapshotRequest(message: Message) {
  return { key: textOf(message, 'key'), parent: textOf(message, 'parent'), labels: labelsOf(message) };
}

function parseCommit(message: Message) {
  return { ...parseSnapshotRequest(message), name: textOf(message, 'name') };
}

function parseUpdate(message: Message) {
  const info = messageOf(message, 'info');
  return {
    change: { name: textOf(info, 'name'), labels: labelsOf(info) },
    paths: textsOf(messageOf(message, 'update_mask'), 'paths'),
  };
}
