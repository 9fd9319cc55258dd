import { connect, createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** A TCP proxy before a registry: slow, or silent. */
export interface SlowProxy {
  /** `127.0.0.1:port` */
  readonly host: string;
  /** Bytes of answers per second over all connections. */
  setRate(bytesPerSecond: number): void;
  /** While true connections are accepted and nothing is answered. */
  setSilent(silent: boolean): void;
  stop(): Promise<void>;
}

const TICK_MS = 10;

/** Listens on a free port of loopback (or `port`) and passes everything on to `upstream`. */
export async function startSlowProxy(init: {
  upstreamPort: number;
  bytesPerSecond: number;
  port?: number;
}): Promise<SlowProxy> {
  let rate = init.bytesPerSecond;
  let silent = false;
  let stopped = false;
  let credit = 0;
  const sockets = new Set<Socket>();
  const timer = setInterval(() => {
    credit = Math.min(credit + (rate * TICK_MS) / 1000, Math.max(rate / 10, 16_384));
  }, TICK_MS);

  async function answer(from: Socket, to: Socket): Promise<void> {
    for await (const bytes of from as AsyncIterable<Buffer>) {
      for (let at = 0; at < bytes.byteLength; ) {
        while (!stopped && !to.destroyed && (silent || credit < 1)) await sleep(TICK_MS);
        if (stopped || to.destroyed) return;
        const take = Math.min(bytes.byteLength - at, Math.ceil(credit));
        credit -= take;
        to.write(bytes.subarray(at, at + take));
        at += take;
      }
    }
    to.end();
  }

  const server = createServer((client) => {
    const upstream = connect(init.upstreamPort, '127.0.0.1');
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => {
        sockets.delete(socket);
        client.destroy();
        upstream.destroy();
      });
    }
    client.pipe(upstream);
    answer(upstream, client).catch(() => client.destroy());
  });
  await new Promise<void>((resolve) => server.listen(init.port ?? 0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  return {
    host: `127.0.0.1:${port}`,
    setRate: (bytesPerSecond) => {
      rate = bytesPerSecond;
    },
    setSilent: (value) => {
      silent = value;
    },
    async stop() {
      stopped = true;
      clearInterval(timer);
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
