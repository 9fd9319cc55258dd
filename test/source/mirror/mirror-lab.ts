import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../../src/clock.ts';
import type { ChunkRef } from '../../../src/core/chunk.ts';
import { type Logger, silentLogger } from '../../../src/log.ts';
import { createMirrorChains, type MirrorChains, type MirrorChainsInit } from '../../../src/source/mirror/chains.ts';
import { createHostsDirectory } from '../../../src/source/mirror/hosts-directory.ts';
import type { MirrorBlobs } from '../../../src/source/mirror/mirror-host.ts';
import type { PullToken } from '../../../src/source/mirror/mirror-policy.ts';
import { createMirroredRegistry } from '../../../src/source/mirror/mirrored-registry.ts';
import { createMirroredStore } from '../../../src/source/mirror/mirrored-store.ts';
import { createStaticCredentials, type StaticCredentials } from '../../../src/source/origin/config-credentials.ts';
import { chainCredentials } from '../../../src/source/origin/credentials.ts';
import { createOriginStore } from '../../../src/source/origin/origin-store.ts';
import { createRegistryClient, type RegistryClient } from '../../../src/source/origin/registry-client.ts';
import { createUrlPolicy } from '../../../src/source/url-policy.ts';
import type { ChunkStore } from '../../../src/store/chunk-store.ts';
import { count, type SourceCounters, sourceCounters } from '../../../src/store/count.ts';
import { FakeRegistry } from '../../fakes/registry.ts';
import { randomChunks, type TestBlob, testBlob } from '../../store/blob-fixture.ts';

/** A registry with one blob, a `certs.d` tree, and the cascade of mirrors and origin over them. */
export interface MirrorLab {
  readonly registry: FakeRegistry;
  readonly blob: TestBlob;
  readonly refs: readonly ChunkRef[];
  readonly store: ChunkStore;
  readonly client: RegistryClient;
  readonly chains: MirrorChains;
  readonly mirror: SourceCounters;
  readonly origin: SourceCounters;
  /** Folder of the registry in the tree. */
  readonly folder: string;
  readonly directory: string;
  /** Writes the registry's `hosts.toml`. */
  hosts(text: string): Promise<void>;
  /** The same of another registry. */
  hostsOf(registry: string, text: string): Promise<void>;
  /** Reads a chunk, checks its bytes, and tells how long it took. */
  read(index: number, how?: { signal?: AbortSignal; urgency?: 'demand' | 'prefetch' }): Promise<number>;
  [Symbol.asyncDispose](): Promise<void>;
}

export async function startMirrorLab(
  init: {
    chunks?: readonly Uint8Array[];
    chains?: Partial<MirrorChainsInit>;
    log?: Logger;
    auth?: FakeRegistry['auth'];
    credentials?: (host: string) => StaticCredentials;
    pullToken?: (client: () => RegistryClient) => PullToken;
  } = {},
): Promise<MirrorLab> {
  const registry = await FakeRegistry.start(init.auth === undefined ? {} : { auth: init.auth });
  const directory = await mkdtemp(join(tmpdir(), 'shoal-mirrors-'));
  const folder = join(directory, registry.host.replace(':', '_').concat('_'));
  await mkdir(folder);
  const blob = testBlob(init.chunks ?? randomChunks(24, 256 * 1024));
  registry.addBlob(blob.compressed);
  const parts = { clock: systemClock, log: init.log ?? silentLogger };
  const policy = createUrlPolicy();
  const source = { registry: registry.host, repository: 'team/app' };
  const blobs: MirrorBlobs = {
    table: (digest) => (digest === blob.digest ? blob.table : undefined),
    find: (digest) => (digest === blob.digest ? { size: blob.compressed.byteLength, sources: [source] } : undefined),
  };
  const credentials = chainCredentials([createStaticCredentials(init.credentials?.(registry.host) ?? {})]);
  const direct = createRegistryClient({ ...parts, policy, credentials }, { retryBaseMs: 2 });
  const chains = createMirrorChains(
    {
      ...parts,
      policy,
      blobs,
      pullToken: init.pullToken?.(() => direct),
      directory: createHostsDirectory(parts, { path: directory }),
    },
    {
      firstByteTimeoutMs: 3_000,
      attemptTimeoutMs: 4_000,
      dragonfly: { tag: '', application: 'shoal', prefetch: false },
      ...init.chains,
    },
  );
  const [mirror, origin] = [sourceCounters('mirror'), sourceCounters('origin')];
  const originStore = createOriginStore({
    blobs: {
      table: blobs.table,
      ranged: (digest) =>
        direct.blob(source, { digest, size: blob.compressed.byteLength }, { signal: AbortSignal.timeout(10_000) }),
    },
  });
  const store = createMirroredStore({
    ...parts,
    chains,
    blobs,
    counted: (inner) => count({ clock: systemClock, inner }, mirror),
    origin: count({ clock: systemClock, inner: originStore }, origin),
  });
  const refs = blob.chunks.map((_, index): ChunkRef => {
    const { digest, length } = blob.table.row(index);
    return { digest, length, blob: blob.digest, index };
  });
  return {
    registry,
    blob,
    refs,
    store,
    chains,
    mirror,
    origin,
    folder,
    directory,
    client: createMirroredRegistry({ ...parts, origin: direct, chains }),
    hosts: (text) => writeFile(join(folder, 'hosts.toml'), text),
    async hostsOf(other, text) {
      const own = join(directory, other);
      await mkdir(own, { recursive: true });
      await writeFile(join(own, 'hosts.toml'), text);
    },
    async read(index, how = {}) {
      const startedMs = performance.now();
      const signal = how.signal ?? AbortSignal.timeout(30_000);
      const chunk = await store.get(refs[index] as ChunkRef, { ...how, signal });
      if (Buffer.compare(chunk.bytes, blob.chunks[index] as Uint8Array) !== 0) throw new Error('wrong bytes');
      return performance.now() - startedMs;
    },
    async [Symbol.asyncDispose]() {
      await store.close();
      await direct.close();
      await registry.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}
