import { isAbsolute } from 'node:path';
import type { ControlRoute } from '../control/server.ts';
import { ShoalError } from '../errors.ts';
import type { ManualMounts } from './manual-mounts.ts';

/** Opening every layer of an image whose registry is slow may take this long. */
const MOUNT_TIMEOUT_MS = 120_000;

/** `onLast` is called when no image is mounted by hand any more. What `shoal mount` and `shoal umount` call on the control socket. */
export function mountRoutes(mounts: ManualMounts, init: { onLast(): void }): ControlRoute[] {
  return [
    {
      method: 'POST',
      path: '/v1/mounts',
      timeoutMs: MOUNT_TIMEOUT_MS,
      handle: ({ body, signal }) =>
        mounts.mount({ reference: field(body, 'reference'), directory: directoryOf(body) }, { signal }),
    },
    {
      method: 'DELETE',
      path: '/v1/mounts',
      timeoutMs: MOUNT_TIMEOUT_MS,
      async handle({ body }) {
        await mounts.unmount(directoryOf(body));
        const left = (await mounts.list()).length;
        if (left === 0) init.onLast();
        return { left };
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
