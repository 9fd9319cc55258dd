import assert from 'node:assert/strict';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { get } from 'node:http';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { type CriClient, criCall, criImages, startContainerd } from '../lab/containerd.ts';
import { run } from '../lab/process.ts';
import { startRegistry } from '../lab/registry.ts';
import { type LabShoal, startShoal } from '../lab/shoal.ts';
import { type LabNode, labImages, NODE_PROGRAMS, runScript, statusOf, whyNot, withDirectory } from './node-lab.ts';

const skip = await whyNot(...NODE_PROGRAMS);
const FIRST = { username: 'kubelet', password: 'canary-first' };
const SECOND = { username: 'kubelet', password: 'canary-second' };
// bcrypt of the two.
const FIRST_LINE = 'kubelet:$2b$05$G3Chy9CTgBMNJyV/keINbepTdx5KkwUB0z5Mn1cafXOmYElfnJGUu\n';
const SECOND_LINE = 'kubelet:$2b$05$4XOVWl5jn7vXpRkvrLiY7ezSxfhRs.ggocgpm7GhXfxmiMpSFTY3C\n';
const HELLO = 'python3 /srv/app/hello.py';
const COLD = 'sha256sum /usr/bin/perl';

interface Lab extends LabNode {
  readonly cri: CriClient;
  readonly htpasswd: string;
  readonly image: string;
}

async function withLab(use: (lab: Lab) => Promise<void>): Promise<void> {
  const images = await labImages();
  await withDirectory(async (dir) => {
    await using stack = new AsyncDisposableStack();
    const htpasswd = join(dir, 'htpasswd');
    await writeFile(htpasswd, FIRST_LINE);
    const registry = await startRegistry({ workDir: dir, storage: images.storage, htpasswd });
    stack.defer(() => registry.stop());
    const home = join(dir, 'containerd');
    const socket = join(dir, 'cri.sock');
    await mkdir(home);
    const config = `[cri]\nsocket = "${socket}"\ncontainerd_socket = "${home}/c.sock"\n[log]\nlevel = "debug"\n`;
    const shoal = await startShoal({ dir: join(dir, 'shoal'), config, env: { HOME: dir, DOCKER_CONFIG: dir } });
    stack.defer(async () => assert.equal(await shoal.stop(), 0));
    const proxy = { name: 'shoal', socket: shoal.socket };
    const containerd = await startContainerd({ dir: home, proxy, registryHost: registry.host });
    stack.defer(() => containerd.stop());
    const cri = criImages(socket);
    stack.defer(() => cri.close());
    await use({ dir, registry, shoal, containerd, cri, htpasswd, image: `${registry.host}/${images.estargz}` });
  });
}

function pull({ cri, image }: Lab, auth?: object): Promise<unknown> {
  return criCall(cri, 'PullImage', { image: { image }, ...(auth === undefined ? {} : { auth }) });
}

describe('kubelet’s image service through shoal', { skip, timeout: 300_000 }, () => {
  it('lends shoal the credential of a pull, which a changed password takes away and the next pull gives again', async () => {
    await withLab(async (lab) => {
      const { image_filesystems: filesystems } = (await criCall(lab.cri, 'ImageFsInfo', {})) as {
        image_filesystems: unknown[];
      };
      assert.ok(filesystems.length > 0);
      await assert.rejects(pull(lab), /401|authoriz|authentication/i);
      await assert.rejects(pull(lab, { ...FIRST, password: 'canary-wrong' }), /401|authoriz|authentication/i);
      assert.deepEqual((await statusOf(lab.shoal)).images, []);

      await pull(lab, FIRST);
      const [image] = (await statusOf(lab.shoal)).images;
      assert.deepEqual(
        image?.layers.map(({ format }) => format),
        ['estargz', 'estargz'],
      );
      const hello = await runScript(lab, { image: lab.image, id: 'hello', script: HELLO });
      assert.equal(hello.stdout, '{"hello": "shoal", "python": 3}\n', hello.stderr);

      await writeFile(lab.htpasswd, SECOND_LINE);
      const refused = await runScript(lab, { image: lab.image, id: 'refused', script: COLD });
      assert.notEqual(refused.status, 0);
      assert.match(refused.stderr, /Input\/output error/);

      await pull(lab, SECOND);
      const healed = await runScript(lab, { image: lab.image, id: 'healed', script: COLD });
      assert.match(healed.stdout, /^[0-9a-f]{64} /, healed.stderr);

      await assertNoSecret(lab.shoal);
      await criCall(lab.cri, 'RemoveImage', { image: { image: lab.image } });
    });
  });
});

/** Log, status, metrics and everything on disk: no password, however it is written. */
async function assertNoSecret(shoal: LabShoal): Promise<void> {
  const texts = {
    log: await readFile(shoal.daemon.logPath, 'utf8'),
    status: JSON.stringify(await statusOf(shoal)),
    metrics: await textOf(shoal.control, '/metrics'),
  };
  assert.match(texts.log, /401/, 'the refusals were logged');
  for (const { username, password } of [FIRST, SECOND, { ...FIRST, password: 'canary-wrong' }]) {
    const forms = [password, Buffer.from(`${username}:${password}`).toString('base64'), encodeURIComponent(password)];
    for (const form of forms) {
      for (const [where, text] of Object.entries(texts)) assert.ok(!text.includes(form), `${where} shows a password`);
      const { stdout } = await run('grep', ['-rlaF', '--', form, shoal.root], { allowFailure: true });
      assert.equal(stdout, '', 'on disk');
    }
  }
}

function textOf(socketPath: string, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    get({ socketPath, path }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => {
        text += part;
      });
      response.on('end', () => resolve(text));
    }).on('error', reject);
  });
}
