import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { listenPrivately } from '../src/unix-socket.ts';

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'shoal-socket-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

async function listening(t: TestContext, path: string): Promise<Server> {
  const server = createServer();
  t.after(() => server.close());
  await listenPrivately(server, path);
  return server;
}

test('only the owner can reach the socket and the folders made for it', async (t) => {
  const path = join(folder(t), 'run', 'shoal', 'a.sock');
  const umask = process.umask(0o022);
  t.after(() => process.umask(umask));
  await listening(t, path);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.equal(statSync(dirname(path)).mode & 0o777, 0o700);
  assert.equal(process.umask(), 0o022);
});

test('a folder that exists keeps its mode', async (t) => {
  const root = folder(t);
  chmodSync(root, 0o755);
  await listening(t, join(root, 'a.sock'));
  assert.equal(statSync(root).mode & 0o777, 0o755);
});

test('a socket somebody serves is not taken; one that was left behind is', async (t) => {
  const path = join(folder(t), 'a.sock');
  const former = await listening(t, path);
  await assert.rejects(listening(t, path), { code: 'FAILED_PRECONDITION', message: /a\.sock: another process/ });
  // Closing removes the file; a second name keeps a socket without a listener, as a crash does.
  renameSync(path, `${path}.kept`);
  await new Promise((resolve) => former.close(resolve));
  renameSync(`${path}.kept`, path);
  assert.equal(existsSync(path), true);
  assert.equal((await listening(t, path)).listening, true);
});

test('nothing but a socket is ever removed', async (t) => {
  const path = join(folder(t), 'a.sock');
  writeFileSync(path, 'precious');
  await assert.rejects(listening(t, path), { code: 'CONFIG_INVALID', message: /something else is there/ });
  assert.equal(readFileSync(path, 'utf8'), 'precious');
});

test('a path that is too long, or that cannot be, is named with the reason', async (t) => {
  const root = folder(t);
  await assert.rejects(listening(t, join(root, 'x'.repeat(110))), { code: 'CONFIG_INVALID', message: /allows 107/ });
  writeFileSync(join(root, 'file'), '');
  const below = listening(t, join(root, 'file', 'a.sock'));
  await assert.rejects(below, { code: 'CONFIG_INVALID', message: /file\/a\.sock: .*(ENOTDIR|EEXIST)/ });
});
