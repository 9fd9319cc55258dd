import { renderConfig } from '../config-text.ts';
import type { Command } from './command.ts';
import { EXIT } from './exit-code.ts';

/** `shoal config`: what is in effect, as a file to start from. */
export const configCommand: Command = {
  name: 'config',
  args: '',
  argCount: { min: 0, max: 0 },
  summary: 'print the configuration in effect',
  description:
    'Prints the configuration in effect (defaults, then the file, then flags) as a documented TOML file that can be\nsaved as /etc/shoal/config.toml. Fails with exit code 78 when the configuration is not valid.',
  options: { json: { type: 'boolean', description: 'print JSON' } },
  async run({ config, options, io }) {
    const effective = config();
    io.out(options.json === true ? `${JSON.stringify(effective, null, 2)}\n` : renderConfig(effective));
    return EXIT.ok;
  },
};
