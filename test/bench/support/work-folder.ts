import { claimLab, sweepLab } from '../../lab/lab-name.ts';

/** Where a benchmark keeps what it makes. */
export interface WorkFolder {
  /** Begins the names of its network namespaces. */
  readonly name: string;
  readonly dir: string;
  /** Ends processes that name the folder, unmounts what is mounted in it, removes it. Idempotent. */
  close(): Promise<void>;
}

const SIGNALS = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;
const claimed = new Set<string>();
let isWatching = false;

/**
 * Makes a folder that is tidied up when this process is told to end, too; what a process that was killed left is tidied
 * up by the next benchmark.
 */
export async function claimFolder(): Promise<WorkFolder> {
  const { name, dir } = await claimLab();
  claimed.add(name);
  watchSignals();
  return {
    name,
    dir,
    async close() {
      if (claimed.delete(name)) await sweepLab(name);
    },
  };
}

function watchSignals(): void {
  if (isWatching) return;
  isWatching = true;
  for (const [signal, code] of Object.entries(SIGNALS)) {
    process.once(signal, () => {
      process.stderr.write('tidying up\n');
      void Promise.allSettled([...claimed].map((name) => sweepLab(name))).then(() => process.exit(code));
    });
  }
}
