import { rm } from 'node:fs/promises';
import { run } from '../../lab/process.ts';

/** More than any measurement touches anew, MiB. */
const WARM_MIB = 2_500;

/**
 * Makes the kernel's free memory real: on a virtual machine that reports free pages to its host, the first touch of each
 * page costs more than what is measured (0.3 GB/s against 7 GB/s). Writes and removes a file below `dir`; lasts until the
 * kernel reports again, some seconds later.
 */
export async function warmMemory(dir: string): Promise<void> {
  const scratch = `${dir}/scratch`;
  await run('dd', ['if=/dev/zero', `of=${scratch}`, 'bs=1M', `count=${WARM_MIB}`]);
  await rm(scratch);
}
