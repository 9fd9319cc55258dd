import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { startContainerd } from './containerd.ts';
import { run } from './process.ts';
import type { LabRegistry } from './registry.ts';

/** A form an image can have in a registry, made from its plain tar.gz form by somebody else's tool. */
export interface ImageFormat {
  /** Tag of the form in the image's repository. */
  readonly tag: string;
  /** Its layers' format as `shoal status` shows it. */
  readonly shown: string;
  /** Programs it takes. */
  readonly programs: readonly string[];
  /** Puts `name:tag` into the registry, whose `name:plain` is there. */
  convert(registry: LabRegistry, name: string, work: string): Promise<void>;
}

const eStargz: ImageFormat = {
  tag: 'esgz',
  shown: 'estargz',
  programs: ['ctr-remote', 'containerd'],
  async convert(registry, name, work) {
    const [plain, estargz] = [`${registry.host}/${name}:plain`, `${registry.host}/${name}:esgz`];
    const dir = join(work, 'containerd');
    await mkdir(dir, { recursive: true });
    const containerd = await startContainerd({ dir, registryHost: registry.host });
    try {
      const remote = { remote: true, timeoutMs: 600_000 };
      await containerd.ctr(['images', 'pull', '--plain-http', plain], remote);
      await containerd.ctr(['images', 'convert', '--estargz', '--oci', plain, estargz], remote);
      await containerd.ctr(['images', 'push', '--plain-http', estargz], remote);
    } finally {
      await containerd.stop();
    }
  },
};

const zstdChunked: ImageFormat = {
  tag: 'zstdchunked',
  shown: 'zstd:chunked',
  programs: ['skopeo'],
  async convert(registry, name, work) {
    const [from, to] = [`docker://${registry.host}/${name}:plain`, `docker://${registry.host}/${name}:zstdchunked`];
    // Not straight into the registry: skopeo would find the gzip layers there and take those.
    const layout = join(work, 'zstdchunked');
    const copy = (...args: string[]) => run('skopeo', ['copy', '--quiet', ...args], { timeoutMs: 600_000 });
    await copy('--src-tls-verify=false', '--dest-compress-format', 'zstd:chunked', from, `oci:${layout}:image`);
    await copy('--dest-tls-verify=false', '--preserve-digests', `oci:${layout}:image`, to);
  },
};

/** Every form that is made of the corpus; `tag` and `shown` differ between them. */
export const FORMATS: readonly ImageFormat[] = [eStargz, zstdChunked];
