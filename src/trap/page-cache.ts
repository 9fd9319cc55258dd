import { writeFile } from 'node:fs/promises';

/** Drops clean page cache: after a trap was lost, what was read meanwhile may be holes. Mapped pages stay. */
export async function dropCaches(): Promise<void> {
  await writeFile('/proc/sys/vm/drop_caches', '1');
}
