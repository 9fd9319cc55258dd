import type { Command } from './command.ts';

/** Every command, in the order the help lists them; loaded when it is called, so that each starts fast. */
export const COMMANDS: ReadonlyMap<string, () => Promise<Command>> = new Map([
  ['serve', async () => (await import('./serve.ts')).serveCommand],
  ['mount', async () => (await import('./mount.ts')).mountCommand],
  ['umount', async () => (await import('./umount.ts')).umountCommand],
  ['status', async () => (await import('./status.ts')).statusCommand],
  ['explain', async () => (await import('./explain.ts')).explainCommand],
  ['swarm', async () => (await import('./swarm.ts')).swarmCommand],
  ['mirrors', async () => (await import('./mirrors.ts')).mirrorsCommand],
  ['dragonfly', async () => (await import('./dragonfly.ts')).dragonflyCommand],
  ['index', async () => (await import('./index.ts')).indexCommand],
  ['doctor', async () => (await import('./doctor.ts')).doctorCommand],
  ['sim', async () => (await import('./sim.ts')).simCommand],
  ['trace', async () => (await import('./trace.ts')).traceCommand],
  ['config', async () => (await import('./config.ts')).configCommand],
  ['version', async () => (await import('./version.ts')).versionCommand],
]);
