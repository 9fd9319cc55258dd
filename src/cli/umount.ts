import { resolve } from 'node:path';
import { createControlClient } from '../control/client.ts';
import type { Command } from './command.ts';
import { EXIT } from './exit-code.ts';

/** `shoal umount`: ends what `shoal mount` made. */
export const umountCommand: Command = {
  name: 'umount',
  args: 'DIR',
  argCount: { min: 1, max: 1 },
  summary: 'end a mount made by shoal mount',
  description:
    'Unmounts the image at DIR. What was fetched stays in the cache. A daemon that `shoal mount` started ends with its\nlast mount.',
  options: {},
  async run({ args, config, io, signal }) {
    const directory = resolve(args[0] as string);
    const client = createControlClient({ socket: config().control.socket });
    await client.call('DELETE', '/v1/mounts', { directory }, { signal });
    io.out(`unmounted ${directory}\n`);
    return EXIT.ok;
  },
};
