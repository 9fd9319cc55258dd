import { isAbsolute } from 'node:path';
import type { ControlRoute } from '../control/server.ts';
import { ShoalError } from '../errors.ts';
import type { ManualMounts } from './manual-mounts.ts';

/** Opening every layer of an image whose registry is slow may take this long. */
const MOUNT_TIMEOUT_MS = 120_000;

/**
 * What `shoal mount` and `shoal umount` call on the control socket. `onLast` is called when no image is mounted by hand
 * any more: the last one was unmounted, or the first one could not be mounted.
 */
export function mountRoutes(mounts: ManualMounts, init: { onLast(): void }): ControlRoute[] {
  let mounting = 0;

  async function leftNow(): Promise<number> {
    const left = (await mounts.list()).length;
    if (left === 0 && mounting === 0) init.onLast();
    return left;
  }

  return [
    {
      method: 'POST',
      path: '/v1/mounts',
      timeoutMs: MOUNT_TIMEOUT_MS,
      async handle({ body, signal }) {
        mounting += 1;
        try {
          return await mounts.mount({ reference: field(body, 'reference'), directory: directoryOf(body) }, { signal });
        } finally {
          mounting -= 1;
          await leftNow();
        }
      },
    },
    {
      method: 'DELETE',
      path: '/v1/mounts',
      timeoutMs: MOUNT_TIMEOUT_MS,
      async handle({ body }) {
        await mounts.unmount(directoryOf(body));
        return { left: await leftNow() };
      },
    },
  ];
}

function directoryOf(body: unknown): string {
  const directory = field(body, 'directory');
  if (!isAbsolute(directory)) throw new ShoalError('INVALID_ARGUMENT', `directory ${directory} is not absolute`);
  return directory;
}

function field(body: unknown, name: string): string {
  const value = typeof body === 'object' && body !== null ? (body as Record<string, unknown>)[name] : undefined;
  if (typeof value !== 'string' || value === '') throw new ShoalError('INVALID_ARGUMENT', `"${name}" is missing`);
  return value;
}
