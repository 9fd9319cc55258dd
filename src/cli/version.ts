import { VERSION } from '../version.ts';
import type { Command } from './command.ts';
import { EXIT } from './exit-code.ts';

/** `shoal version`. */
export const versionCommand: Command = {
  name: 'version',
  args: '',
  argCount: { min: 0, max: 0 },
  summary: 'print the version',
  description: 'Prints the version of shoal and of the Node.js that runs it.',
  options: { json: { type: 'boolean', description: 'print JSON' } },
  async run({ options, io }) {
    const versions = { shoal: VERSION, node: process.versions.node };
    io.out(
      options.json === true ? `${JSON.stringify(versions)}\n` : `shoal ${versions.shoal} (Node.js ${versions.node})\n`,
    );
    return EXIT.ok;
  },
};
