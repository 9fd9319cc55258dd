import { type Digest, parseDigest } from '../core/digest.ts';
import { asObject, parseStrictJson } from './strict-json.ts';

/** What a container of the image runs unless told otherwise (OCI image spec, config.md). */
export interface StartCommand {
  /** First words of `Entrypoint` and `Cmd`: the program, or an entry script and the program it is told to run. */
  readonly programs: readonly string[];
  /** Directories of `PATH`, in order. */
  readonly path: readonly string[];
}

/** A real config has a few hundred tokens per layer of history. */
const LIMITS = { maxDepth: 16, maxTokens: 200_000 };
const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Reads an image config. Throws INVALID_MANIFEST; members of another type count as absent. */
export function parseStartCommand(bytes: Uint8Array): StartCommand {
  const document = asObject(parseStrictJson(bytes, 'image config', LIMITS), 'image config');
  const config = document.config === undefined ? {} : asObject(document.config, 'image config');
  const programs = [config.Entrypoint, config.Cmd].map((argv) => (Array.isArray(argv) ? argv[0] : undefined));
  const env = Array.isArray(config.Env) ? config.Env : [];
  const path = env.findLast((each): each is string => typeof each === 'string' && each.startsWith('PATH='));
  return {
    programs: programs.filter((word): word is string => typeof word === 'string' && word !== ''),
    path: (path?.slice('PATH='.length) ?? DEFAULT_PATH).split(':').filter((dir) => dir.startsWith('/')),
  };
}

/**
 * Digests of the image's layers uncompressed, lowest first (`rootfs.diff_ids`). Throws INVALID_MANIFEST, or INVALID_DIGEST
 * when one is none.
 */
export function parseDiffIds(bytes: Uint8Array): readonly Digest[] {
  const { rootfs } = asObject(parseStrictJson(bytes, 'image config', LIMITS), 'image config');
  const { diff_ids: listed } = asObject(rootfs ?? {}, 'image config: rootfs');
  return Array.isArray(listed) ? listed.map(parseDigest) : [];
}
