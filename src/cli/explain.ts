import { createControlClient } from '../control/client.ts';
import type {
  ChunkExplanation,
  ExplainReport,
  FetchStory,
  Holder,
  ImageExplanation,
  LayerExplanation,
  LayerFacts,
  PeerUse,
} from '../control/explain.ts';
import type { SourceStatus } from '../control/status.ts';
import type { Command } from './command.ts';
import { EXIT } from './exit-code.ts';
import { humanBytes, type Io, paint, percent, printable, table } from './output.ts';
import { sourceRows } from './status.ts';

/** `shoal explain`: where something is, where it came from, and why from there. */
export const explainCommand: Command = {
  name: 'explain',
  args: 'IMAGE|DIGEST',
  argCount: { min: 1, max: 1 },
  summary: 'say where an image, a layer or a chunk came from, and why from there',
  description:
    'Of an image (its name, or the digest of its manifest): its layers, what of them is here, what each source gave, the\nneighbours used lately, and why a layer is not lazy. Of a layer or a chunk (its digest): where it is on this node,\nwhich neighbours have it, who served it when, and why not a neighbour. The daemon remembers its latest fetches only.',
  options: { json: { type: 'boolean', description: 'print JSON' } },
  async run({ args, config, options, io, signal }) {
    const client = createControlClient({ socket: config().control.socket });
    const target = encodeURIComponent(args[0] as string);
    const report = (await client.call('GET', `/v1/explain?target=${target}`, undefined, { signal })) as ExplainReport;
    io.out(options.json === true ? `${JSON.stringify(report, null, 2)}\n` : renderExplanation(report, io));
    return EXIT.ok;
  },
};

/** An explanation as people read it. */
export function renderExplanation(report: ExplainReport, io: Io): string {
  // names, reasons and repositories come from outside
  const safe = JSON.parse(JSON.stringify(report), (_, value: unknown) =>
    typeof value === 'string' ? printable(value) : value,
  ) as ExplainReport;
  if (safe.kind === 'image') return renderImage(safe, io);
  return safe.kind === 'layer' ? renderLayer(safe, io) : renderChunk(safe, io);
}

function renderImage(report: ImageExplanation, io: Io): string {
  const head = table([
    ['image', report.reference],
    ...(report.manifestDigest === undefined ? [] : [['manifest', report.manifestDigest]]),
  ]);
  const layers = [
    bold(io, 'LAYER', 'FORMAT', 'CHUNKS', 'HERE', 'TOTAL', 'DONE'),
    ...report.layers.map((layer) => [short(layer.digest), ...amounts(layer)]),
  ];
  const unpacked = report.layers
    .filter(({ lazy }) => !lazy)
    .map(({ digest, why }) => `${short(digest)} is not lazy: ${why ?? 'no reason is on record'}\n`);
  return [
    head,
    table(layers, [2, 3, 4]),
    ...(unpacked.length === 0 ? [] : [unpacked.join('')]),
    sources(report.sources, io),
    peers(report.peers, io),
    stories('latest failures', report.failures, io),
  ]
    .filter((part) => part !== '')
    .join('\n');
}

function renderLayer(report: LayerExplanation, io: Io): string {
  const { layer } = report;
  const head = table([
    ['layer', layer.digest],
    ['format', layer.format],
    [
      'here',
      `${layer.chunksHere} of ${layer.chunksTotal} chunks, ${humanBytes(layer.bytesHere)} of ${humanBytes(layer.bytesTotal)}`,
    ],
    ...(layer.lazy ? [] : [['not lazy', layer.why ?? 'no reason is on record']]),
    ...report.images.map((image) => ['image', image]),
    ...report.repositories.map((repository) => ['repository', repository]),
  ]);
  return [
    head,
    holders(report.holders, io),
    sources(report.sources, io),
    peers(report.peers, io),
    stories('latest fetches', report.fetches, io),
  ]
    .filter((part) => part !== '')
    .join('\n');
}

function renderChunk(report: ChunkExplanation, io: Io): string {
  const head = table([
    ['chunk', report.digest],
    ...report.places.map(({ layer, row, bytes, here }) => [
      here ? 'here' : 'not here',
      `chunk ${row} of layer ${short(layer)}, ${humanBytes(bytes)}`,
    ]),
    ...(report.whyNoNeighbour === undefined ? [] : [['not from a neighbour', report.whyNoNeighbour]]),
  ]);
  return [head, holders(report.holders, io), stories('latest fetches', report.fetches, io)]
    .filter((part) => part !== '')
    .join('\n');
}

function amounts({ lazy, format, chunksHere, chunksTotal, bytesHere, bytesTotal }: LayerFacts): string[] {
  if (!lazy) return [format, '', 'with containerd'];
  const chunks = `${chunksHere}/${chunksTotal}`;
  return [format, chunks, humanBytes(bytesHere), humanBytes(bytesTotal), percent(chunksHere, chunksTotal)];
}

function sources(all: Readonly<Record<string, SourceStatus>>, io: Io): string {
  return table([...sourceRows(all, io)], [1, 2, 3, 4, 5]);
}

function peers(uses: readonly PeerUse[], io: Io): string {
  if (uses.length === 0) return '';
  const rows = uses.map(({ source, peer, chunks, others, lastAt }) => {
    const rest = Object.entries(others).map(([outcome, count]) => `${count} ${outcome}`);
    return [source, peer, String(chunks), rest.join(', '), lastAt];
  });
  return table([bold(io, 'ASKED', 'PEER', 'CHUNKS', 'OTHER ANSWERS', 'LAST'), ...rows], [2]);
}

function holders(all: readonly Holder[] | undefined, io: Io): string {
  if (all === undefined) return 'the swarm is off: no neighbour was asked who has it\n';
  if (all.length === 0) return 'no neighbour says that it has it\n';
  const rows = all.map(({ peer, address, zone, chunks }) => [
    peer,
    address,
    zone,
    chunks === undefined ? '' : `${chunks} chunks`,
  ]);
  return table([bold(io, 'WHO HAS IT', 'ADDRESS', 'ZONE', ''), ...rows]);
}

function stories(title: string, all: readonly FetchStory[], io: Io): string {
  if (all.length === 0) return '';
  const lines = all.map(({ at, digest, bytes, urgency, steps }) => {
    const path = steps.map(({ source, peer, outcome, ms, why }) => {
      const who = peer === undefined ? source : `${source} ${peer}`;
      return `${who} ${outcome} in ${ms} ms${why === undefined ? '' : ` (${why})`}`;
    });
    return `  ${at}  ${short(digest)}  ${humanBytes(bytes)}, ${urgency}: ${path.join(', then ') || 'nobody was asked'}\n`;
  });
  return `${paint(io, 'bold', title)}\n${lines.join('')}`;
}

function bold(io: Io, ...cells: string[]): string[] {
  return cells.map((cell) => paint(io, 'bold', cell));
}

/** The algorithm and enough hex to tell digests apart. */
function short(digest: string): string {
  return digest.slice(0, digest.indexOf(':') + 13);
}
