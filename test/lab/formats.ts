import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { RafsOptions } from '../fakes/rafs/blob-writer.ts';
import type { LabContainerd } from './containerd.ts';
import { convertToNydus } from './nydus-format.ts';
import { run } from './process.ts';
import type { LabRegistry } from './registry.ts';
import { convertToSoci } from './soci-format.ts';

/** What a conversion works with. */
export interface Workshop {
  readonly registry: LabRegistry;
  /** Unpacks with overlayfs. */
  readonly containerd: LabContainerd;
  /** A directory for files that are not needed afterwards. */
  readonly work: string;
}

/** A form an image can have in a registry, made from its plain tar.gz form. */
export interface ImageFormat {
  /** Tag of the form in the image's repository. */
  readonly tag: string;
  /** Its layers' format as `shoal status` shows it. */
  readonly shown: string;
  /** Programs it takes. */
  readonly programs: readonly string[];
  /** Puts `name:tag` into the registry, whose `name:plain` is there and unpacked. */
  convert(workshop: Workshop, name: string): Promise<void>;
}

const eStargz: ImageFormat = {
  tag: 'esgz',
  shown: 'estargz',
  programs: ['ctr-remote'],
  async convert({ registry, containerd }, name) {
    const [plain, estargz] = [`${registry.host}/${name}:plain`, `${registry.host}/${name}:esgz`];
    const remote = { remote: true, timeoutMs: 600_000 };
    await containerd.ctr(['images', 'convert', '--estargz', '--oci', plain, estargz], remote);
    await containerd.ctr(['images', 'push', '--plain-http', estargz], remote);
  },
};

const zstdChunked: ImageFormat = {
  tag: 'zstdchunked',
  shown: 'zstd:chunked',
  programs: ['skopeo'],
  async convert({ registry, work }, name) {
    const [from, to] = [`docker://${registry.host}/${name}:plain`, `docker://${registry.host}/${name}:zstdchunked`];
    // Not straight into the registry: skopeo would find the gzip layers there and take those.
    const layout = join(work, 'zstdchunked');
    await mkdir(layout, { recursive: true });
    const copy = (...args: string[]) => run('skopeo', ['copy', '--quiet', ...args], { timeoutMs: 600_000 });
    await copy('--src-tls-verify=false', '--dest-compress-format', 'zstd:chunked', from, `oci:${layout}:image`);
    await copy('--dest-tls-verify=false', '--preserve-digests', `oci:${layout}:image`, to);
    await rm(layout, { recursive: true });
  },
};

/** By the tests' own writer: Nydus' tools are in no package. */
function nydus(tag: string, options: Partial<RafsOptions>): ImageFormat {
  return {
    tag,
    shown: 'nydus',
    programs: [],
    convert: (workshop, name) => convertToNydus(workshop, name, { tag, options }),
  };
}

/** As it is: read whole by the first start. */
const plain: ImageFormat = { tag: 'plain', shown: 'tar.gz', programs: [], async convert() {} };

/** By the tests' own writer: SOCI's tools are in no package. */
const soci: ImageFormat = {
  tag: 'soci',
  shown: 'soci',
  programs: [],
  async convert(workshop, name) {
    await convertToSoci(workshop, { from: `${name}:plain`, tag: 'soci' });
  },
};

/** Every form that is made of the corpus, by a tag of its own. */
export const FORMATS: readonly ImageFormat[] = [
  eStargz,
  zstdChunked,
  nydus('nydus', { chunkInfoV2: true, batchSize: 0x20000 }),
  nydus('nydus-v5', { version: 5, aligned: false, compressor: 'lz4_block', digester: 'sha256' }),
  soci,
  plain,
];
