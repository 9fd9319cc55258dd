import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { access, mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { startContainerd } from './containerd.ts';
import { run } from './process.ts';
import { startRegistry } from './registry.ts';

/** Images of the lab: a registry storage directory that holds them all, so that a run only has to start a registry. */
export interface LabImages {
  /** Storage directory for `startRegistry`. */
  readonly storage: string;
  /** Repository:tag of Debian + Python as plain tar.gz layers. */
  readonly plain: string;
  /** The same image as eStargz. */
  readonly estargz: string;
}

const PLAIN = 'library/debian-python:plain';
const ESTARGZ = 'library/debian-python:esgz';
/** Raise when what is built changes, so that old caches are not used. */
const RECIPE = 1;

/** Builds the images with mmdebstrap and ctr-remote, or reuses what an earlier run left in `cacheDir`. */
export function prepareImages(cacheDir: string, say: (line: string) => void): Promise<LabImages> {
  const images = { storage: join(cacheDir, `registry-${RECIPE}`), plain: PLAIN, estargz: ESTARGZ };
  return buildOnce(images, say, buildLayout);
}

/** Fills `images.storage` from the OCI layout (tag `image`) that `build` makes; later calls find it done. */
export async function buildOnce(
  images: LabImages,
  say: (line: string) => void,
  build: (work: string, say: (line: string) => void) => Promise<string>,
): Promise<LabImages> {
  const { storage } = images;
  if (await exists(join(storage, 'complete'))) return images;
  await mkdir(dirname(storage), { recursive: true });
  const work = await mkdtemp('/var/tmp/shoal-images-');
  try {
    const fresh = join(work, 'storage');
    const layout = await build(work, say);
    say('converting it to eStargz with ctr-remote');
    await pushAndConvert(work, fresh, layout, images);
    await writeFile(join(fresh, 'complete'), '');
    await rm(storage, { recursive: true, force: true });
    await run('cp', ['-a', fresh, `${storage}.new`]);
    await rename(`${storage}.new`, storage);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return images;
}

/** An OCI layout of two layers: Debian with Python, and a small application on top. */
async function buildLayout(work: string, say: (line: string) => void): Promise<string> {
  const suite = await debianSuite();
  const tar = join(work, 'base.tar');
  say(`building a Debian ${suite} + Python root with mmdebstrap (once; it is cached)`);
  await run('mmdebstrap', ['--variant=minbase', '--include=python3', '--quiet', suite, tar], { timeoutMs: 900_000 });
  const app = join(work, 'app');
  await mkdir(join(app, 'srv/app'), { recursive: true });
  await mkdir(join(app, 'usr/share'), { recursive: true });
  await writeFile(
    join(app, 'srv/app/hello.py'),
    'import json, sys\nprint(json.dumps({"hello": "shoal", "python": sys.version_info[0]}))\n',
  );
  await writeFile(join(app, 'usr/share/.wh.doc'), '');
  await run('tar', ['--owner=0', '--group=0', '--mtime=@1700000000', '-cf', join(work, 'app.tar'), '-C', app, '.']);
  const layout = join(work, 'layout');
  await mkdir(join(layout, 'blobs/sha256'), { recursive: true });
  const layers = [await addLayer(layout, tar), await addLayer(layout, join(work, 'app.tar'))];
  await rm(tar);
  await writeLayout(layout, layers);
  return layout;
}

/** Name of the Debian release to build from: this machine's, if it runs Debian. */
export async function debianSuite(): Promise<string> {
  const release = await readFile('/etc/os-release', 'utf8');
  return /^ID=debian$/m.test(release) ? (/^VERSION_CODENAME=(\w+)$/m.exec(release)?.[1] ?? 'bookworm') : 'bookworm';
}

/** A layer of an OCI layout. */
export interface LayerFile {
  readonly digest: string;
  readonly size: number;
  readonly diffId: string;
}

/** Compresses a tar into an OCI layout. */
export async function addLayer(layout: string, tarPath: string): Promise<LayerFile> {
  const packed = join(layout, 'layer.tmp');
  const diff = createHash('sha256');
  const blob = createHash('sha256');
  const source = createReadStream(tarPath, { highWaterMark: 1 << 20 });
  source.on('data', (bytes) => diff.update(bytes));
  const gzip = createGzip({ level: 6 });
  gzip.on('data', (bytes: Buffer) => blob.update(bytes));
  await pipeline(source, gzip, createWriteStream(packed));
  const digest = blob.digest('hex');
  const { size } = await stat(packed);
  await rename(packed, join(layout, 'blobs/sha256', digest));
  return { digest: `sha256:${digest}`, size, diffId: `sha256:${diff.digest('hex')}` };
}

/** Writes config, manifest and index of an image of these layers. */
export async function writeLayout(layout: string, layers: readonly LayerFile[]): Promise<void> {
  const config = await putJson(layout, {
    architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
    os: 'linux',
    config: { Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'], Cmd: ['python3'] },
    rootfs: { type: 'layers', diff_ids: layers.map((layer) => layer.diffId) },
  });
  const manifest = await putJson(layout, {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', ...config },
    layers: layers.map(({ digest, size }) => ({
      mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
      digest,
      size,
    })),
  });
  const descriptor = {
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    ...manifest,
    annotations: { 'org.opencontainers.image.ref.name': 'image' },
  };
  await writeFile(join(layout, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [descriptor] }));
  await writeFile(join(layout, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
}

async function putJson(layout: string, value: unknown): Promise<{ digest: string; size: number }> {
  const text = JSON.stringify(value);
  const hex = createHash('sha256').update(text).digest('hex');
  await writeFile(join(layout, 'blobs/sha256', hex), text);
  return { digest: `sha256:${hex}`, size: Buffer.byteLength(text) };
}

/** Fills a registry storage with an image and its eStargz form, made by ctr-remote. */
export async function pushAndConvert(
  work: string,
  storage: string,
  layout: string,
  names: { plain: string; estargz: string } = { plain: PLAIN, estargz: ESTARGZ },
): Promise<void> {
  const registry = await startRegistry({ workDir: work, storage });
  try {
    const plain = `${registry.host}/${names.plain}`;
    const estargz = `${registry.host}/${names.estargz}`;
    await run('skopeo', ['copy', '--dest-tls-verify=false', `oci:${layout}:image`, `docker://${plain}`], {
      timeoutMs: 300_000,
    });
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
  } finally {
    await registry.stop();
  }
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}
