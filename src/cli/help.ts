import { COMMON_OPTIONS, type Command, type CommandOption } from './command.ts';
import { COMMANDS } from './commands.ts';
import { EXIT_MEANING } from './exit-code.ts';
import { table } from './output.ts';

const TAGLINE = 'shoal: container images that start before they are downloaded';

/** Text of `shoal --help`. */
export async function overview(): Promise<string> {
  const commands = await allCommands();
  const rows = commands.map(({ name, args, summary }) => [`  ${name} ${args}`.trimEnd(), summary]);
  return [
    `${TAGLINE}\n`,
    'usage: shoal COMMAND [OPTIONS]\n',
    `${table([...rows, ['  help [COMMAND]', 'tell more about a command']])}`,
    'Options of every command:\n',
    table(optionRows(COMMON_OPTIONS)),
    'Exit codes:\n',
    table(
      EXIT_MEANING.map(([code, meaning]) => [`  ${code}`, meaning]),
      [],
    ),
  ]
    .join('\n')
    .replaceAll(':\n\n', ':\n');
}

/** Text of `shoal help COMMAND`. */
export function commandHelp(command: Command): string {
  const own = optionRows(command.options);
  return [
    `${usageLine(command)}\n`,
    `${command.description}\n`,
    ...(own.length === 0 ? [] : [`Options:\n${table(own)}`]),
    `Options of every command:\n${table(optionRows(COMMON_OPTIONS))}`,
  ].join('\n');
}

/** docs/cli.md. */
export async function commandReference(): Promise<string> {
  const sections = (await allCommands()).map((command) => {
    const options = Object.entries(command.options).map(
      ([name, option]) => `| \`${optionText(name, option)}\` | ${option.description} |`,
    );
    const list = options.length === 0 ? [] : ['', '| option | meaning |', '|---|---|', ...options];
    return [
      `## ${command.name}`,
      '',
      `\`${usageLine(command).slice('usage: '.length)}\``,
      '',
      command.description,
      ...list,
      '',
    ];
  });
  const common = Object.entries(COMMON_OPTIONS).map(
    ([name, option]) => `| \`${optionText(name, option)}\` | ${option.description} |`,
  );
  const exits = EXIT_MEANING.map(([code, meaning]) => `| ${code} | ${meaning} |`);
  const lines = [
    '# Command line',
    '',
    'Output is for people: aligned tables, and colours and bars on a terminal only (`NO_COLOR` turns colours off).',
    '`--json` is for programs. An error is one line on standard error that names the key, file or host it is about.',
    '',
    'This page is generated from `src/cli/` (`npm run docs`).',
    '',
    ...sections.flat(),
    '## Options of every command',
    '',
    '| option | meaning |',
    '|---|---|',
    ...common,
    '',
    '## Exit codes',
    '',
    '| code | meaning |',
    '|---|---|',
    ...exits,
  ];
  return `${lines.join('\n')}\n`;
}

function allCommands(): Promise<Command[]> {
  return Promise.all(Array.from(COMMANDS.values(), (load) => load()));
}

function usageLine({ name, args }: Command): string {
  return `usage: shoal ${[name, '[OPTIONS]', args].filter((part) => part !== '').join(' ')}`;
}

function optionRows(options: Readonly<Record<string, CommandOption>>): string[][] {
  return Object.entries(options).map(([name, option]) => [`  ${optionText(name, option)}`, option.description]);
}

function optionText(name: string, { short, value }: CommandOption): string {
  return `${short === undefined ? '' : `-${short}, `}--${name}${value === undefined ? '' : ` ${value}`}`;
}
