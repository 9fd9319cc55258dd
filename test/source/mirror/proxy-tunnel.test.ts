import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { createTransport } from '../../../src/source/origin/transport.ts';
import { approveMirror, createUrlPolicy } from '../../../src/source/url-policy.ts';
import { whyNot } from '../../e2e/node-lab.ts';
import { FakeRegistry } from '../../fakes/registry.ts';
import { startTlsMirror } from '../../lab/nginx.ts';

const skip = await whyNot('nginx', 'openssl');

test('https through a forward proxy goes through a tunnel, with TLS up to the registry', { skip }, async () => {
  const dir = await mkdtemp(join(tmpdir(), 'shoal-tunnel-'));
  await using registry = await FakeRegistry.start();
  const tls = await startTlsMirror(dir, registry.host);
  const sockets = new Set<Socket>();
  const asked: string[] = [];
  const proxy = createServer((_request, response) => response.writeHead(500).end());
  proxy.on('connect', (request, socket: Socket, head) => {
    asked.push(request.url ?? '');
    const { hostname, port } = new URL(`tcp://${request.url}`);
    const through = connect(Number(port), hostname, () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      through.write(head);
      through.pipe(socket).pipe(through);
    });
    for (const each of [socket, through]) {
      sockets.add(each);
      each.on('error', () => each.destroy());
    }
  });
  proxy.listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  const pem = (name: string): Promise<string> => readFile(join(dir, name), 'utf8');
  const transport = createTransport(
    { policy: createUrlPolicy() },
    {
      proxy: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`,
      tls: { ca: [await pem('ca.crt')], cert: [await pem('client.crt')], key: [await pem('client.key')] },
    },
  );
  try {
    const { status } = await transport.request(approveMirror('registry.example', `${tls.url}/v2/`), {
      method: 'GET',
      headers: {},
      signal: AbortSignal.timeout(10_000),
      plan: () => ({ kind: 'discard' }),
    });
    assert.equal(status, 200);
    assert.deepEqual(asked, [new URL(tls.url).host]);
  } finally {
    await transport.close();
    for (const socket of sockets) socket.destroy();
    proxy.close();
    await tls.stop();
    await rm(dir, { recursive: true, force: true });
  }
});
