import { fileURLToPath } from 'node:url';
import { prepareImages } from '../../lab/images.ts';
import { modelImage } from './images.ts';

/** An image, and what its container does when it starts. */
export interface BenchStart {
  /** Storage directory of a registry that has it. */
  readonly storage: string;
  readonly image: string;
  readonly script: string;
}

const CACHE = fileURLToPath(new URL('../../../.cache/images', import.meta.url));

/**
 * `python`: prints one line, out of hundreds of small chunks, and takes processors more than links. `model`: reads 64 MiB
 * and takes links more than processors.
 */
export async function prepareStart(name: string): Promise<BenchStart> {
  if (name === 'model') {
    const { storage, estargz } = await modelImage();
    return { storage, image: estargz, script: 'cat /model/part-* | wc -c' };
  }
  if (name !== 'python') throw new Error(`no start is called ${name}: python or model`);
  const { storage, estargz } = await prepareImages(CACHE, console.log);
  return { storage, image: estargz, script: 'python3 /srv/app/hello.py' };
}
