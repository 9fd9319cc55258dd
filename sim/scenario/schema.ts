/** The schema of scenario files: keys, types, defaults, bounds and what they mean. Units are in the names. */

/** A node of the schema. */
export interface Node {
  readonly type: 'object' | 'number' | 'integer' | 'string' | 'boolean' | 'array';
  readonly description: string;
  readonly default?: unknown;
  readonly enum?: readonly string[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minLength?: number;
  readonly minItems?: number;
  readonly items?: Omit<Node, 'description'>;
  readonly required?: readonly string[];
  readonly properties?: Readonly<Record<string, Node>>;
  readonly additionalProperties?: boolean | Node;
}

/** Policies that can be compared, in the order of the report. */
export const POLICY_NAMES = ['shoal', 'neighbours', 'plain', 'whole-layer', 'scheduler'] as const;

/** How starts are spread over time. */
export const ARRIVAL_KINDS = ['all-at-once', 'rolling', 'poisson', 'burst'] as const;

function object(description: string, properties: Record<string, Node>, required: readonly string[] = []): Node {
  return { type: 'object', description, additionalProperties: false, properties, required };
}

function named(description: string, each: Node): Node {
  return { type: 'object', description, additionalProperties: each };
}

function number(description: string, bounds: { min: number; max: number; default?: number }): Node {
  return { type: 'number', description, minimum: bounds.min, maximum: bounds.max, ...defaultOf(bounds) };
}

function integer(description: string, bounds: { min: number; max: number; default?: number }): Node {
  return { type: 'integer', description, minimum: bounds.min, maximum: bounds.max, ...defaultOf(bounds) };
}

function defaultOf(init: { default?: number }): { default?: number } {
  return init.default === undefined ? {} : { default: init.default };
}

/** Capacities from a modem to what no node has yet. */
const MBIT = { min: 0.1, max: 1_000_000 };
const SECONDS = { min: 0, max: 86_400 };
const SHARE = { min: 0, max: 1 };

const GROUP = object(
  'A part of the nodes that differs from the rest.',
  {
    share: number('Part of all nodes.', SHARE),
    up_mbit_per_s: number('Uplink of each.', MBIT),
    down_mbit_per_s: number('Downlink of each.', MBIT),
  },
  ['share'],
);

const ZONE = object('A zone of nodes, or a region of zones.', {
  parent: { type: 'string', description: 'Zone this one lies in; not set: it hangs on the core.' },
  weight: number('Nodes are spread over the zones in these proportions; 0 for a region without nodes of its own.', {
    min: 0,
    max: 1_000_000,
    default: 1,
  }),
  up_mbit_per_s: number('Link out of the zone; not set: never a bottleneck.', MBIT),
  down_mbit_per_s: number('Link into the zone; not set: never a bottleneck.', MBIT),
  latency_ms: number('One way from the zone to what it lies in.', { min: 0, max: 1_000, default: 0.5 }),
});

const IMAGE = object('An image.', {
  size_mib: number('Uncompressed size.', { min: 1, max: 1_048_576, default: 512 }),
  layers: integer('Layers, of equal size.', { min: 1, max: 128, default: 8 }),
  chunk_kib: number('Size of a chunk.', { min: 4, max: 32_768, default: 1_024 }),
  file_kib: number('Files are read from their beginning to their end; this is their size.', {
    min: 4,
    max: 1_048_576,
    default: 8_192,
  }),
  compressed: number('Compressed bytes per byte: what the registry sends and whole-layer pulls move.', {
    min: 0.05,
    max: 1,
    default: 1,
  }),
  read_share: number('Part of the bytes that a start reads.', { min: 0.001, max: 1, default: 1 }),
  order_skew: number('How much the order of reading differs from node to node: 0 not at all, 1 each its own.', {
    ...SHARE,
    default: 0,
  }),
  think_ms: number('Time a container works between two reads.', { min: 0, max: 60_000, default: 0 }),
  readers: integer('Reads of one container at the same time.', { min: 1, max: 256, default: 1 }),
  shares_with: { type: 'string', description: 'Image that this one has chunks in common with.' },
  shared_layers: integer('Layers it has in common with that image, from the bottom.', { min: 0, max: 128, default: 0 }),
  shared: number('Part of the chunks of its other layers that the layers of that image have too.', {
    ...SHARE,
    default: 0,
  }),
  trace: {
    type: 'string',
    description: 'Recording of a real start (`shoal trace record`), from this file’s folder; replaces size and order.',
  },
});

const ARRIVAL = object(
  'Starts of containers.',
  {
    image: { type: 'string', description: 'Image they start.' },
    kind: {
      type: 'string',
      description: 'How they are spread over time.',
      enum: ARRIVAL_KINDS,
      default: 'all-at-once',
    },
    at_s: number('When the first one comes.', { ...SECONDS, default: 0 }),
    nodes: integer('Nodes that get one; not set: all.', { min: 1, max: 100_000 }),
    surge: number('rolling: part of the nodes that start at the same time.', { min: 0, max: 1, default: 0.25 }),
    pause_s: number('rolling: from one that is ready to the next.', { ...SECONDS, default: 0 }),
    per_s: number('poisson: starts per second, on average.', { min: 0, max: 100_000 }),
    over_s: number('burst: all within this time, evenly at random.', SECONDS),
  },
  ['image'],
);

const CHURN = object(
  'Nodes that die and come back.',
  {
    share: number('Part of the nodes.', SHARE),
    at_s: number('When.', SECONDS),
    over_s: number('They die within this time.', { ...SECONDS, default: 0 }),
    back_after_s: number('Time until they are back and start what they were to run; not set: never.', SECONDS),
    keeps_disk: { type: 'boolean', description: 'Whether what they had fetched is still there.', default: true },
  },
  ['share', 'at_s'],
);

/** The whole of a scenario file. */
export const SCENARIO_SCHEMA: Node = object(
  'A scenario.',
  {
    title: { type: 'string', minLength: 1, description: 'The question it answers.' },
    seed: integer('Everything random follows from it.', { min: 0, max: 4_294_967_295, default: 1 }),
    policies: {
      type: 'array',
      description: 'Policies that are compared.',
      items: { type: 'string', enum: POLICY_NAMES },
      minItems: 1,
      default: POLICY_NAMES,
    },
    limit_s: number('Simulated time after which starts that are not done count as failed.', {
      min: 1,
      max: 86_400,
      default: 3_600,
    }),
    nodes: object('The nodes.', {
      count: integer('How many.', { min: 1, max: 100_000, default: 100 }),
      up_mbit_per_s: number('Uplink of each.', { ...MBIT, default: 1_000 }),
      down_mbit_per_s: number('Downlink of each.', { ...MBIT, default: 1_000 }),
      latency_ms: number('One way from a node to its zone’s switch.', { min: 0, max: 1_000, default: 0.1 }),
      cores: number('Processor cores that shoal may use; those of the machine where nodes share one.', {
        min: 0.1,
        max: 256,
        default: 2,
      }),
      per_machine: integer(
        'Nodes on one machine (virtual machines, kind), each with links of its own: daemons and containers share `cores`. 1: a machine each, whose containers never wait for processors.',
        { min: 1, max: 100_000, default: 1 },
      ),
      group: named('Sections `[nodes.group.NAME]`.', GROUP),
    }),
    zone: named('Sections `[zone.NAME]`; without any, all nodes are in one.', ZONE),
    registry: object('The registry, outside the swarm.', {
      egress_mbit_per_s: number('What it sends in all.', { ...MBIT, default: 1_000 }),
      latency_ms: number('From a request to the first byte of its answer.', { min: 0, max: 60_000, default: 30 }),
      requests_per_s: number('Requests it answers; more wait. 0: no limit.', { min: 0, max: 1_000_000, default: 0 }),
    }),
    image: named('Sections `[image.NAME]`.', IMAGE),
    arrival: named('Sections `[arrival.NAME]`.', ARRIVAL),
    churn: named('Sections `[churn.NAME]`.', CHURN),
    shoal: object('The daemon’s settings.', {
      claims: { type: 'boolean', description: 'Claim a chunk before it is fetched from outside.', default: true },
      readahead: { type: 'boolean', description: 'Fetch ahead of sequential reads.', default: true },
      hints: {
        type: 'boolean',
        description:
          'The image marks what its start reads (eStargz landmark), and that is fetched before it is asked for.',
        default: false,
      },
      hint_order: {
        type: 'string',
        description:
          'mixed: pieces of all layers in one order of the node’s own, as the daemon does it; layers: layer by layer, within a layer in such an order, as it did before docs/studies/flash-crowd.md.',
        enum: ['layers', 'mixed'],
        default: 'mixed',
      },
      replication: integer('Peers that keep the record of an announced chunk.', { min: 1, max: 20, default: 3 }),
      background: { type: 'boolean', description: 'Fetch the rest of the image after the start.', default: false },
      refuse_undirected: {
        type: 'boolean',
        description:
          'A busy node refuses requests that no claim directed to it, as the daemon does; false: as it did before docs/studies/flash-crowd.md.',
        default: true,
      },
      upload_mbit_per_s: number('Budget for serving neighbours; 0: the whole uplink.', {
        min: 0,
        max: 1_000_000,
        default: 0,
      }),
      request_kib: number('Neighbouring chunks are fetched from the registry with one request up to this size.', {
        min: 4,
        max: 65_536,
        default: 4_096,
      }),
      registry_connections: integer('Requests of one node under way at the registry.', {
        min: 1,
        max: 256,
        default: 16,
      }),
      fresh: {
        type: 'boolean',
        description:
          'The daemons began a moment ago, as on new nodes: each chunk and message costs processors several times as much.',
        default: false,
      },
    }),
    simulation: object('How exactly it is simulated.', {
      unit_kib: integer(
        'Neighbouring chunks up to this size, at most a claim region or a file, travel as one. Not set: each by itself in small scenarios, as large as may be in others (docs/simulation.md).',
        { min: 0, max: 65_536 },
      ),
    }),
    plain: object('Plain pulls.', {
      layers_at_once: integer('Layers of an image that are downloaded at the same time.', {
        min: 1,
        max: 128,
        default: 3,
      }),
    }),
    'whole-layer': object('Whole layers from peers that have them.', {
      resolve_ms: number('Time after which the search for a peer ends.', { min: 0, max: 60_000, default: 20 }),
      layers_at_once: integer('Layers of an image that are downloaded at the same time.', {
        min: 1,
        max: 128,
        default: 3,
      }),
    }),
    scheduler: object('A central scheduler.', {
      seed_peers: integer('Seed peers that fetch from the registry.', { min: 1, max: 1_000, default: 3 }),
      seed_up_mbit_per_s: number('Uplink of each seed peer.', { ...MBIT, default: 10_000 }),
      piece_mib: number('Smallest piece; larger ones keep a layer below 500 pieces.', { min: 1, max: 64, default: 4 }),
      pieces_at_once: integer('Pieces of a layer that a peer downloads at the same time.', {
        min: 1,
        max: 64,
        default: 8,
      }),
      parents: integer('Peers the scheduler names.', { min: 1, max: 64, default: 4 }),
      uploads: integer('Pieces a peer sends at the same time.', { min: 1, max: 1_000, default: 50 }),
      layers_at_once: integer('Layers of an image that are downloaded at the same time.', {
        min: 1,
        max: 128,
        default: 3,
      }),
    }),
  },
  ['title', 'image', 'arrival'],
);
