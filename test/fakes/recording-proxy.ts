import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/** A TCP proxy that keeps everything clients send. */
export interface RecordingProxy {
  /** `127.0.0.1:port` */
  readonly host: string;
  /** All bytes of all clients so far, as Latin-1 text. */
  text(): string;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Listens on a free loopback port and passes everything on to `upstream` (`host:port`). */
export async function startRecordingProxy(upstream: string): Promise<RecordingProxy> {
  const [hostname, port] = upstream.split(':') as [string, string];
  const recorded: Buffer[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const target = connect(Number(port), hostname);
    for (const [socket, other] of [
      [client, target],
      [target, client],
    ] as const) {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => {
        sockets.delete(socket);
        other.destroy();
      });
    }
    client.on('data', (part: Buffer) => recorded.push(part));
    client.pipe(target);
    target.pipe(client);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const close = async (): Promise<void> => {
    for (const socket of sockets) socket.destroy();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  };
  return {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    text: () => Buffer.concat(recorded).toString('latin1'),
    close,
    [Symbol.asyncDispose]: close,
  };
}
