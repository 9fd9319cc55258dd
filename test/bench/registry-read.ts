/**
 * MB/s of 4 MiB ranged reads over loopback, from the fake registry and from docker-registry, one at a time and four
 * together. Usage: node test/bench/registry-read.ts [seconds per case]. Each server is a process of its own.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { systemClock } from '../../src/clock.ts';
import { digestHex, sha256 } from '../../src/core/digest.ts';
import type { RangedBlob } from '../../src/image/layer-reader.ts';
import { MANIFEST_TYPES } from '../../src/image/manifest.ts';
import { parseReference } from '../../src/image/reference.ts';
import { silentLogger } from '../../src/log.ts';
import { chainCredentials } from '../../src/source/origin/credentials.ts';
import { createRegistryClient } from '../../src/source/origin/registry-client.ts';
import { createUrlPolicy } from '../../src/source/url-policy.ts';
import { FakeRegistry } from '../fakes/registry.ts';
import { RealRegistry } from '../fakes/registry-real.ts';
import { claimFolder } from './support/work-folder.ts';

const READ_BYTES = 4 * 1024 * 1024;
const BLOB = Buffer.alloc(64 * 1024 * 1024, 'shoal ');
const CONFIG = Buffer.from('{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}');

if (process.argv[2] === 'serve-fake') {
  const registry = await FakeRegistry.start();
  registry.addBlob(BLOB);
  process.send?.(registry.host);
} else {
  await main(Number(process.argv[2] ?? 3));
}

async function main(seconds: number): Promise<void> {
  const folder = await claimFolder();
  await using stack = new AsyncDisposableStack();
  stack.defer(() => folder.close());
  const server = fork(fileURLToPath(import.meta.url), ['serve-fake', join(folder.dir, 'fake')]);
  try {
    const [host] = (await once(server, 'message', { signal: AbortSignal.timeout(20_000) })) as [string];
    await measure('fake registry', host, seconds);
  } finally {
    server.kill('SIGKILL');
  }
  if (!(await RealRegistry.available())) return;
  await using real = await RealRegistry.start({ folder: folder.dir });
  const layout = join(folder.dir, 'layout');
  await writeLayout(layout);
  await real.push(layout, 'bench/app', 'latest');
  await measure('docker-registry', real.host, seconds);
}

async function measure(name: string, host: string, seconds: number): Promise<void> {
  const components = {
    policy: createUrlPolicy(),
    credentials: chainCredentials([]),
    log: silentLogger,
    clock: systemClock,
  };
  await using client = createRegistryClient(components);
  const signal = AbortSignal.timeout(120_000);
  const blob = await client.blob(
    parseReference(`${host}/bench/app`),
    { digest: sha256(BLOB), size: BLOB.byteLength },
    { signal },
  );
  for (const parallel of [1, 4]) {
    await run(blob, parallel, 0.5, signal);
    const cpu = process.cpuUsage();
    const start = performance.now();
    const bytes = await run(blob, parallel, seconds, signal);
    const elapsed = performance.now() - start;
    const { user, system } = process.cpuUsage(cpu);
    const cpuPerGb = (user + system) / 1e6 / (bytes / 1e9);
    console.log(
      `${name}, ${parallel} at a time: ${(bytes / 1e3 / elapsed).toFixed(0)} MB/s, ${cpuPerGb.toFixed(2)} CPU-s/GB of the client`,
    );
  }
}

async function run(blob: RangedBlob, parallel: number, seconds: number, signal: AbortSignal): Promise<number> {
  const end = performance.now() + seconds * 1000;
  let bytes = 0;
  let next = 0;
  const worker = async (): Promise<void> => {
    while (performance.now() < end) {
      const offset = (next++ % (blob.size / READ_BYTES)) * READ_BYTES;
      const part = await blob.read(offset, READ_BYTES, { signal });
      bytes += part.byteLength;
    }
  };
  await Promise.all(Array.from({ length: parallel }, worker));
  return bytes;
}

/** An OCI layout with one uncompressed layer of 64 MiB; skopeo does not look inside. */
async function writeLayout(directory: string): Promise<void> {
  await mkdir(join(directory, 'blobs/sha256'), { recursive: true });
  const put = async (bytes: Uint8Array, mediaType: string) => {
    const digest = sha256(bytes);
    await writeFile(join(directory, 'blobs/sha256', digestHex(digest)), bytes);
    return { mediaType, digest, size: bytes.byteLength };
  };
  const config = await put(CONFIG, 'application/vnd.oci.image.config.v1+json');
  const layer = await put(BLOB, 'application/vnd.oci.image.layer.v1.tar');
  const manifest = { schemaVersion: 2, mediaType: MANIFEST_TYPES[0], config, layers: [layer] };
  const entry = await put(Buffer.from(JSON.stringify(manifest)), MANIFEST_TYPES[0]);
  await writeFile(join(directory, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [entry] }));
  await writeFile(join(directory, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
}
