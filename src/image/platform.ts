import { ShoalError } from '../errors.ts';
import type { ImageIndex, IndexEntry } from './manifest.ts';

/** Operating system, CPU and CPU variant in containerd's normal form (`linux`, `arm64`, ``). */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  /** Empty when the architecture has one variant only. */
  readonly variant: string;
}

const ARCHITECTURES: Readonly<Record<string, string>> = {
  x64: 'amd64',
  'x86-64': 'amd64',
  x86_64: 'amd64',
  ia32: '386',
  i386: '386',
  aarch64: 'arm64',
  armhf: 'arm',
  armel: 'arm',
  loong64: 'loong64',
  ppc64: 'ppc64le',
};

/** The normal form of a platform, as containerd's `platforms.Normalize` gives it. */
export function normalizePlatform(platform: Platform): Platform {
  const os = platform.os.toLowerCase();
  const given = platform.architecture.toLowerCase();
  const architecture = Object.hasOwn(ARCHITECTURES, given) ? (ARCHITECTURES[given] as string) : given;
  let variant = platform.variant.toLowerCase();
  if (given === 'armhf') variant = 'v7';
  if (given === 'armel') variant = 'v6';
  if (architecture === 'arm') variant = /^\d+$/.test(variant) ? `v${variant}` : variant === '' ? 'v7' : variant;
  if (architecture === 'arm64' && (variant === 'v8' || variant === '8')) variant = '';
  if (architecture === 'amd64' && variant === 'v1') variant = '';
  return { os, architecture, variant };
}

/** The platform of a Node.js process: `hostPlatform(process.arch)`; containers are always `linux`. */
export function hostPlatform(nodeArch: string): Platform {
  return normalizePlatform({ os: 'linux', architecture: nodeArch, variant: '' });
}

/** `linux/arm64/v8` as people write it. */
export function formatPlatform(platform: Platform): string {
  return [platform.os, platform.architecture, platform.variant].filter((part) => part !== '').join('/');
}

/**
 * The entry of an index that fits `platform` best, by containerd's order: the same variant, then lesser ones the CPU
 * also runs; the first of equals. An entry that names no platform is taken last. Throws NOT_FOUND listing what there is.
 */
export function chooseManifest(index: ImageIndex, platform: Platform): IndexEntry {
  // What goes along with an image, such as a SOCI index, may name its platform too.
  const images = index.manifests.filter(({ artifactType }) => artifactType === undefined);
  const candidates = images.length > 0 ? images : index.manifests;
  for (const wanted of acceptable(normalizePlatform(platform))) {
    const found = candidates.find(
      ({ platform: has }) =>
        has?.os === wanted.os && has.architecture === wanted.architecture && has.variant === wanted.variant,
    );
    if (found !== undefined) return found;
  }
  const unnamed = candidates.find((entry) => entry.platform === undefined);
  if (unnamed !== undefined) return unnamed;
  const offered = [...new Set(candidates.map((entry) => formatPlatform(entry.platform as Platform)))].slice(0, 20);
  throw new ShoalError(
    'NOT_FOUND',
    `no manifest for ${formatPlatform(platform)}; the image has ${offered.join(', ') || 'none'}`,
  );
}

/** Best first, as containerd's `platforms.Only` orders them. */
function acceptable(platform: Platform): Platform[] {
  const { os, architecture, variant } = platform;
  const list = [platform];
  const add = (arch: string, ...variants: string[]): void => {
    for (const each of variants) list.push({ os, architecture: arch, variant: each });
  };
  if (architecture === 'amd64') {
    const level = Number(variant.slice(1)) || 1;
    for (let lower = level - 1; lower >= 1; lower -= 1) add('amd64', lower === 1 ? '' : `v${lower}`);
    add('386', '');
  } else if (architecture === 'arm64') {
    if (variant !== '') add('arm64', '');
    add('arm', 'v8', 'v7', 'v6', 'v5');
  } else if (architecture === 'arm') {
    for (let lower = (Number(variant.slice(1)) || 7) - 1; lower >= 5; lower -= 1) add('arm', `v${lower}`);
  }
  return list;
}
