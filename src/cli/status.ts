import { setTimeout as sleep } from 'node:timers/promises';
import { createControlClient } from '../control/client.ts';
import type { ImageStatus, SourceStatus, StatusReport, SwarmTraffic } from '../control/status.ts';
import type { Command } from './command.ts';
import { EXIT } from './exit-code.ts';
import { bar, humanBytes, type Io, paint, percent, printable, table } from './output.ts';

const WATCH_EVERY_MS = 1_000;

/** `shoal status`: what the daemon holds and where it came from. */
export const statusCommand: Command = {
  name: 'status',
  args: '',
  argCount: { min: 0, max: 0 },
  summary: 'show images, what of them is on this node, and where the bytes came from',
  description:
    'Asks the daemon over its control socket. Shows each image with its bytes on this node and in all, the cold reads\n(faults) that had to wait, and how many bytes each source gave.',
  options: {
    json: { type: 'boolean', description: 'print JSON; with --watch one line per second' },
    layers: { type: 'boolean', short: 'l', description: 'show the layers of each image' },
    watch: { type: 'boolean', short: 'w', description: 'go on showing until interrupted' },
  },
  async run({ config, options, io, signal }) {
    const client = createControlClient({ socket: config().control.socket });
    const watch = options.watch === true;
    for (;;) {
      const report = await client.status({ signal });
      if (options.json === true) io.out(`${JSON.stringify(report, null, watch ? undefined : 2)}\n`);
      else io.out((watch && io.isTty ? '\u001b[H\u001b[J' : '') + renderStatus(report, io, options.layers === true));
      if (!watch) return EXIT.ok;
      try {
        await sleep(WATCH_EVERY_MS, undefined, { signal });
      } catch {
        return EXIT.ok;
      }
    }
  },
};

/** A status report as people read it. */
export function renderStatus(report: StatusReport, io: Io, withLayers: boolean): string {
  const { daemon, images, faults } = report;
  const sources = Object.entries(report.bytesBySource).map(([name, bytes]) => `${name} ${humanBytes(bytes)}`);
  const head = table([
    [
      'daemon',
      `shoal ${daemon.version}, pid ${daemon.pid}, since ${daemon.startedAt}, ${humanBytes(daemon.rssBytes)} RSS`,
    ],
    ['trap', `${daemon.trap.kind} (${daemon.trap.reason})`],
    ['faults', `${faults.cold} cold, ${faults.warm} warm, ${faults.denied} denied`],
    ['bytes from', sources.length === 0 ? 'nowhere yet' : sources.join(', ')],
    ['network', `${humanBytes(report.fetchedBytes)} of compressed layers`],
    ['background', background(report.background)],
    ...(report.swarm === undefined ? [] : [['neighbours', swarmLine(report.swarm)]]),
    ...report.mounts.map(({ reference, directory }) => ['mount', printable(`${directory}  ${reference}`)]),
  ]);
  const sourceTable = table(sourceRows(report.sources, io), [1, 2, 3, 4, 5]);
  if (images.length === 0) return `${head}\n${sourceTable}\nno images\n`;
  const title = ['IMAGE', 'LAYERS', 'ON NODE', 'TOTAL', ...(io.isTty ? [''] : []), 'DONE'].map((cell) =>
    paint(io, 'bold', cell),
  );
  const rows = images.flatMap((image) => [imageRow(image, io), ...(withLayers ? layerRows(image, io) : [])]);
  const errors = images
    .filter(({ error }) => error !== undefined)
    .map(({ reference, error }) => `${paint(io, 'red', 'error')} ${printable(`${reference}: ${error}`)}\n`);
  return `${head}\n${sourceTable}\n${table([title, ...rows], [1, 2, 3])}${errors.join('')}`;
}

function swarmLine({ given, crossZone, corrupt, claims }: SwarmTraffic): string {
  const outside = claims.hedged + claims.gaveUp;
  return [
    `${humanBytes(given.bytes)} given to them`,
    `${claims.granted} chunks claimed and fetched for all`,
    ...(outside === 0 ? [] : [`${outside} fetched although claimed by others`]),
    ...(crossZone.fromBytes === 0 ? [] : [`${humanBytes(crossZone.fromBytes)} from other zones`]),
    ...(corrupt === 0 ? [] : [`${corrupt} WRONG answers`]),
  ].join(', ');
}

/** What each source did, under a title; none when there is none. */
export function sourceRows(sources: Readonly<Record<string, SourceStatus>>, io: Io): string[][] {
  const named = Object.entries(sources);
  if (named.length === 0) return [];
  const title = ['SOURCE', 'CHUNKS', 'BYTES', 'MISSING', 'FAILED', 'MEAN'].map((cell) => paint(io, 'bold', cell));
  const rows = named.map(([name, { chunks, bytes, missing, errors, meanMs }]) => {
    const failures = Object.entries(errors).map(([code, count]) => `${count} ${code}`);
    const failed = failures.length === 0 ? '0' : paint(io, 'yellow', failures.join(', '));
    return [name, String(chunks), humanBytes(bytes), String(missing), failed, `${meanMs} ms`];
  });
  return [title, ...rows];
}

function imageRow(image: ImageStatus, io: Io): string[] {
  const cached = image.layers.reduce((sum, layer) => sum + layer.bytesCached, 0);
  const total = image.layers.reduce((sum, layer) => sum + layer.bytesTotal, 0);
  const lazy = image.layers.filter(({ format }) => format !== 'unpacked').length;
  const layers = lazy === image.layers.length ? String(lazy) : `${lazy} of ${image.layers.length}`;
  return [printable(image.reference), layers, ...amounts(cached, total, io)];
}

function layerRows(image: ImageStatus, io: Io): string[][] {
  return image.layers.map((layer) => {
    const name = `  ${printable(layer.digest).slice(0, 'sha256:'.length + 12)} ${printable(layer.format)}${layer.why === undefined ? '' : ` (${printable(layer.why)})`}`;
    if (layer.format === 'unpacked') return [name, '', '', 'with containerd'];
    return [name, '', ...amounts(layer.bytesCached, layer.bytesTotal, io)];
  });
}

function background({ state, layers, bytes }: StatusReport['background']): string {
  const done = `${humanBytes(bytes)} fetched ahead of readers`;
  return layers === 0 ? done : `${done}, ${layers} layers to complete (${state})`;
}

function amounts(cached: number, total: number, io: Io): string[] {
  const share = percent(cached, total);
  return [humanBytes(cached), humanBytes(total), ...(io.isTty ? [bar(cached, total, 16)] : []), share];
}
