import { createControlClient } from '../control/client.ts';
import type { MirrorStatus, MirrorsReport, RegistryMirrors } from '../control/mirrors-report.ts';
import type { Command } from './command.ts';
import { EXIT } from './exit-code.ts';
import { humanBytes, type Io, paint, printable, table } from './output.ts';

/** `shoal mirrors`: what is asked for each registry's content, and how it is doing. */
export const mirrorsCommand: Command = {
  name: 'mirrors',
  args: '',
  argCount: { min: 0, max: 0 },
  summary: 'show the mirrors of each registry, their health and what they gave',
  description:
    'Asks the daemon. Shows for each registry that has a `hosts.toml` or images on this node what is asked for its\ncontent, in order: mirrors, a forward proxy, the registry itself; with health, last error and bytes given. The last\nrow is what `_default` says of all others.',
  options: { json: { type: 'boolean', description: 'print JSON' } },
  async run({ config, options, io, signal }) {
    const client = createControlClient({ socket: config().control.socket });
    const report = (await client.call('GET', '/v1/mirrors', undefined, { signal })) as MirrorsReport;
    io.out(options.json === true ? `${JSON.stringify(report, null, 2)}\n` : renderMirrors(report, io));
    return EXIT.ok;
  },
};

/** A report as people read it. */
export function renderMirrors(report: MirrorsReport, io: Io): string {
  const { enabled, configPath, registries } = report;
  const head = enabled ? `mirrors from ${printable(configPath)}\n` : 'mirrors are switched off (key mirrors.enabled)\n';
  if (registries.length === 0) return `${head}no registry is known yet\n`;
  const title = ['REGISTRY', 'ASKS', 'KIND', 'FOR', 'HEALTH', 'READS', 'FAILED', 'BYTES'];
  const rows = registries.flatMap((registry) => registryRows(registry, io));
  const notes = registries.flatMap((registry) => registryNotes(registry, io));
  return head + table([title.map((cell) => paint(io, 'bold', cell)), ...rows], [5, 6, 7]) + notes.join('');
}

function registryRows({ registry, mirrors, origin }: RegistryMirrors, io: Io): string[][] {
  const name = registry === '_default' ? 'any other (_default)' : printable(registry);
  const asked = mirrors.map((mirror) => mirrorCells(mirror, io));
  if (origin) asked.push(['the registry itself', 'origin', '', '', '', '', '']);
  if (asked.length === 0) asked.push(['nothing', '', '', '', '', '', '']);
  return asked.map((cells, index) => [index === 0 ? name : '', ...cells]);
}

function mirrorCells({ url, kind, capabilities, health, requests, failures, bytes }: MirrorStatus, io: Io): string[] {
  const tint = health === 'ok' ? 'green' : health === 'resting' ? 'red' : 'yellow';
  return [
    printable(url),
    kind,
    capabilities.length === 0 ? 'nothing' : capabilities.join(', '),
    paint(io, tint, health),
    String(requests),
    String(failures),
    humanBytes(bytes),
  ];
}

function registryNotes({ registry, error, warnings, mirrors }: RegistryMirrors, io: Io): string[] {
  const note = (tint: 'red' | 'yellow', word: string, text: string): string =>
    `${paint(io, tint, word)} ${printable(text)}\n`;
  return [
    ...(error === undefined
      ? []
      : [note('red', 'error', `of ${registry}, whose newest hosts.toml is not in effect: ${error}`)]),
    ...warnings.map((warning) => note('yellow', 'warning', warning)),
    ...mirrors.flatMap(({ url, lastError }) =>
      lastError === undefined ? [] : [note('yellow', 'last error', `${url} at ${lastError.at}: ${lastError.message}`)],
    ),
  ];
}
