/**
 * The one schema of the configuration: keys, types, defaults, bounds and what they mean. The checks, the `Config` type,
 * `shoal config` and docs/configuration.md all come from here. Units are in the names: `_ms`, `_bytes`.
 */

const socketPath = { type: 'string', pattern: '^/.', maxLength: 107 } as const;
const absolutePath = { type: 'string', pattern: '^/.' } as const;

const REGISTRY = {
  type: 'object',
  additionalProperties: false,
  description:
    'What is special about one registry, by host as image references name it (`docker.io`, `registry.example:5000`).',
  properties: {
    plain_http: {
      type: 'boolean',
      description: 'Speak http. Not set: only with registries on loopback. Bytes are verified all the same.',
    },
    allow_private: {
      type: 'boolean',
      default: false,
      description: 'The registry may be at a private or loopback address, and redirect to private ones.',
    },
    username: { type: 'string', minLength: 1, description: 'User name; needs `password_file`.' },
    password_file: {
      ...absolutePath,
      description: 'File that holds the password, readable by its owner only; needs `username`.',
    },
    token_hosts: {
      type: 'array',
      items: { type: 'string', pattern: '^[A-Za-z0-9.:\\[\\]-]+$' },
      default: [],
      description: 'Other hosts (`host[:port]`) that may be sent the credentials in exchange for a token.',
    },
  },
} as const;

const IMAGE = {
  type: 'object',
  additionalProperties: false,
  description:
    'What is special about images, by name as `shoal status` shows it (`docker.io/library/python:3.12`); `*` stands for any characters. The longest pattern that matches an image counts.',
  properties: {
    background: { type: 'boolean', description: 'As `fetch.background`, for these images.' },
    background_bytes_per_second: {
      type: 'integer',
      minimum: 0,
      maximum: 100_000_000_000,
      description: 'As `fetch.background_bytes_per_second`, for these images together.',
    },
  },
} as const;

/** The schema, as JSON Schema (draft 7). */
export const CONFIG_SCHEMA = {
  type: 'object',
  additionalProperties: false,
  properties: {
    root: {
      ...absolutePath,
      default: '/var/lib/shoal',
      description:
        'Folder of everything shoal keeps. ext4, xfs or btrfs for the fanotify trap; made with mode 0700 when missing.',
    },
    snapshotter: {
      type: 'object',
      additionalProperties: false,
      description: 'The side containerd talks to.',
      properties: {
        socket: {
          ...socketPath,
          default: '/run/shoal/snapshotter.sock',
          description:
            'Unix socket of the snapshots service: the `address` of the proxy plugin in containerd. With a `root` of your own and no socket named: `<root>/snapshotter.sock`.',
        },
      },
    },
    control: {
      type: 'object',
      additionalProperties: false,
      description: 'The side people and monitoring talk to.',
      properties: {
        socket: {
          ...socketPath,
          default: '/run/shoal/control.sock',
          description:
            'Unix socket (mode 0600) of `shoal status` and of the Prometheus metrics. With a `root` of your own and no socket named: `<root>/control.sock`.',
        },
      },
    },
    trap: {
      type: 'object',
      additionalProperties: false,
      description: 'How the kernel tells shoal of cold reads.',
      properties: {
        kind: {
          type: 'string',
          enum: ['auto', 'fanotify', 'fuse'],
          default: 'auto',
          description: '`auto` takes fanotify where the kernel has it (Linux 6.15) and FUSE elsewhere.',
        },
        fault_deadline_ms: {
          type: 'integer',
          minimum: 100,
          maximum: 600_000,
          default: 30_000,
          description: 'A cold read that no source could serve in this time ends with EIO; reading again tries again.',
        },
      },
    },
    store: {
      type: 'object',
      additionalProperties: false,
      description: 'Layer data on disk.',
      properties: {
        flush_interval_ms: {
          type: 'integer',
          minimum: 10,
          maximum: 60_000,
          default: 1_000,
          description:
            'Longest time a fetched chunk stays volatile: what a power cut may cost in chunks to fetch again.',
        },
      },
    },
    fetch: {
      type: 'object',
      additionalProperties: false,
      description: 'How bytes are fetched from registries.',
      properties: {
        connections_per_registry: {
          type: 'integer',
          minimum: 1,
          maximum: 256,
          default: 16,
          description: 'Connections to one registry; registries and object stores throttle clients that open more.',
        },
        connect_timeout_ms: {
          type: 'integer',
          minimum: 100,
          maximum: 60_000,
          default: 3_000,
          description: 'Time to connect, name resolution and TLS included.',
        },
        stall_timeout_ms: {
          type: 'integer',
          minimum: 100,
          maximum: 120_000,
          default: 10_000,
          description: 'Longest time without a byte of an answer before it counts as failed.',
        },
        attempts: {
          type: 'integer',
          minimum: 1,
          maximum: 20,
          default: 20,
          description: 'Most tries of one request, the first included, with doubling waits (at most 1 s) between them.',
        },
        retry_budget_ms: {
          type: 'integer',
          minimum: 0,
          maximum: 600_000,
          default: 10_000,
          description:
            'How long a request goes on trying after its first failure. A registry that answers 429 or 503 is waited for longer.',
        },
        request_bytes_max: {
          type: 'integer',
          minimum: 65_536,
          maximum: 67_108_864,
          default: 4_194_304,
          description: 'Neighbouring missing chunks are fetched with one request up to this size.',
        },
        prefetch: {
          type: 'boolean',
          default: true,
          description:
            'Fetch what a start is likely to read before it is asked for: what the image itself marks (eStargz landmark), the program of its config with the libraries it names, and what an earlier start on this node read.',
        },
        background: {
          type: 'boolean',
          default: false,
          description:
            'Go on and fetch the rest of each mounted layer, so that it works with the registry gone. Rests while a container waits for a cold read.',
        },
        background_bytes_per_second: {
          type: 'integer',
          minimum: 0,
          maximum: 100_000_000_000,
          default: 0,
          description: 'Uncompressed bytes a second that this may take, all images together; 0: no limit.',
        },
        only_configured: {
          type: 'boolean',
          default: false,
          description: 'Refuse registries without a `[registry."host"]` section.',
        },
        ca: {
          ...absolutePath,
          description: 'PEM file of the authorities that sign registry certificates, in place of the built-in ones.',
        },
      },
    },
    mirrors: {
      type: 'object',
      additionalProperties: false,
      description:
        'Mirrors of registries, asked before the registry itself. They are listed in the same `hosts.toml` files that containerd reads.',
      properties: {
        enabled: { type: 'boolean', default: true, description: 'Use the mirrors that `config_path` lists.' },
        config_path: {
          ...absolutePath,
          default: '/etc/containerd/certs.d',
          description:
            'Folder with one folder per registry (`host_port_`, `host:port`, `host`, `_default`), each with a `hosts.toml`. A change is in effect within a second.',
        },
        pull_tokens: {
          type: 'boolean',
          default: false,
          description:
            'Let mirrors have the registry’s token for pulls of one repository, if it ends within five minutes. A Dragonfly client shares it with its whole cluster. Off: private images are read from the registry itself.',
        },
        first_byte_timeout_ms: {
          type: 'integer',
          minimum: 100,
          maximum: 30_000,
          default: 3_000,
          description: 'Longest time without a byte of a mirror’s answer before the next source is asked.',
        },
        attempt_timeout_ms: {
          type: 'integer',
          minimum: 100,
          maximum: 60_000,
          default: 4_000,
          description: 'Longest time for one request (at most 4 MiB) to a mirror.',
        },
      },
    },
    dragonfly: {
      type: 'object',
      additionalProperties: false,
      description:
        'What a Dragonfly client is told: mirrors whose `hosts.toml` sets an `X-Dragonfly-…` header, and `[proxy]`.',
      properties: {
        tag: { type: 'string', default: '', description: 'Sent as `X-Dragonfly-Tag`; empty: not sent.' },
        application: {
          type: 'string',
          default: 'shoal',
          description: 'Sent as `X-Dragonfly-Application`; empty: not sent.',
        },
        prefetch: {
          type: 'boolean',
          default: false,
          description: 'Let Dragonfly fetch the whole layer when a part of it is read (`X-Dragonfly-Prefetch`).',
        },
      },
    },
    proxy: {
      type: 'object',
      additionalProperties: false,
      description:
        'A forward proxy, as which a Dragonfly client can be used too. Asked after the mirrors, before the registry.',
      properties: {
        url: {
          type: 'string',
          pattern: '^https?://[^/@]+$',
          description: 'Where the proxy is: `http://127.0.0.1:4001`. Not set: no proxy.',
        },
        ping_url: {
          type: 'string',
          pattern: '^https?://',
          description: 'Answers 2xx while the proxy is healthy; asked after it failed.',
        },
        fallback: {
          type: 'boolean',
          default: true,
          description: 'Ask the registry itself when the proxy fails. Off: reads fail with it.',
        },
        check_interval_ms: {
          type: 'integer',
          minimum: 100,
          maximum: 600_000,
          default: 5_000,
          description: 'First rest of a proxy that failed, and time to its first health check.',
        },
        use_http: {
          type: 'boolean',
          default: true,
          description:
            'Ask for https registries as http, so that the proxy sees what is asked (Dragonfly: a rule with `useTLS`). Off: a tunnel, which the proxy must intercept to be of use.',
        },
      },
    },
    layers: {
      type: 'object',
      additionalProperties: false,
      description: 'Layers without an index of their own: plain `tar.gz` and `tar`.',
      properties: {
        plain: {
          type: 'boolean',
          default: true,
          description:
            'Read them through shoal: with an index where there is one, else whole while an index is made. Off: containerd unpacks them.',
        },
        whole_bytes_max: {
          type: 'integer',
          minimum: 0,
          maximum: 1_073_741_824,
          default: 1_048_576,
          description: 'Those up to this size are fetched whole, and no index is made for them.',
        },
        index_trust: {
          type: 'string',
          enum: ['local', 'registry'],
          default: 'local',
          description:
            'Whose indexes are believed: those made by this node only, or also those that an image has in its registry. Whoever may push to the repository decides then what the files of its layers hold.',
        },
        neighbour_indexes: {
          type: 'boolean',
          default: false,
          description:
            'Believe the indexes that neighbours have. Every member of the swarm can decide then what the files of a layer hold.',
        },
        soci: {
          type: 'boolean',
          default: true,
          description:
            'Use the SOCI index that an image names in its manifest (v2), and with `index_trust` of the registry those that refer to it (v1).',
        },
        index_bytes_max: {
          type: 'integer',
          minimum: 0,
          maximum: 68_719_476_736,
          default: 536_870_912,
          description: 'Disk for indexes, which outlive the data of their layers; the longest unused go first.',
        },
      },
    },
    auth: {
      type: 'object',
      additionalProperties: false,
      description: 'Credentials that are not in this file.',
      properties: {
        docker_config: {
          ...absolutePath,
          description:
            'A docker `config.json` with credentials or credential helpers, read anew each time. Not set: `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`.',
        },
        kubelet_provider_config: {
          ...absolutePath,
          description:
            "kubelet's CredentialProviderConfig (its `--image-credential-provider-config`); needs `kubelet_provider_dir`.",
        },
        kubelet_provider_dir: {
          ...absolutePath,
          description: 'Folder of those plugins (its `--image-credential-provider-bin-dir`).',
        },
        kubernetes_secrets: {
          ...absolutePath,
          description:
            'A `.dockerconfigjson` file, a mounted pull secret, or a folder of mounted pull secrets; read anew each time.',
        },
      },
    },
    cri: {
      type: 'object',
      additionalProperties: false,
      description:
        'The image service that kubelet may be pointed at (`--image-service-endpoint`): shoal passes every call on to containerd and remembers the credentials of pulls, in memory only.',
      properties: {
        socket: {
          ...socketPath,
          description: 'Unix socket (mode 0600) of the image service. Not set: there is none.',
        },
        containerd_socket: {
          ...socketPath,
          default: '/run/containerd/containerd.sock',
          description: "containerd's own socket, where the calls go.",
        },
      },
    },
    log: {
      type: 'object',
      additionalProperties: false,
      description: 'Log lines go to standard error.',
      properties: {
        level: {
          type: 'string',
          enum: ['debug', 'info', 'warn', 'error'],
          default: 'info',
          description: 'The least severe lines that are written.',
        },
        format: { type: 'string', enum: ['plain', 'json'], default: 'plain', description: 'How a line looks.' },
      },
    },
    limits: {
      type: 'object',
      additionalProperties: false,
      description: 'What an image may cost. A layer beyond a limit is left to containerd, which unpacks it.',
      properties: {
        toc_bytes_max: {
          type: 'integer',
          minimum: 65_536,
          maximum: 268_435_456,
          default: 67_108_864,
          description: "Compressed bytes of a layer's table of contents; uncompressed it may have 128 MiB.",
        },
        layer_entries_max: {
          type: 'integer',
          minimum: 1_000,
          maximum: 10_000_000,
          default: 1_000_000,
          description: 'Files, directories and links of one layer: about 1 KB of memory each while it is read.',
        },
      },
    },
    swarm: {
      type: 'object',
      additionalProperties: false,
      description: 'Other nodes as a source. Off until `listen` is set.',
      properties: {
        listen: {
          type: 'string',
          pattern: '^([0-9.]+|\\[[0-9a-fA-F:]+\\]):[0-9]{1,5}$',
          description:
            'Address and port for the peers of the swarm, `0.0.0.0:7946` say; turns the swarm on and needs `key_file`.',
        },
        data_port: {
          type: 'integer',
          minimum: 1,
          maximum: 65_535,
          default: 7947,
          description: 'Port, at the same address, that gives chunks to peers over TLS.',
        },
        key_file: {
          ...absolutePath,
          description:
            'The secret all nodes of the swarm have, readable by its owner only: `shoal swarm key generate`. Without it nobody gets a byte.',
        },
        bootstrap: {
          type: 'array',
          items: { type: 'string', minLength: 1, maxLength: 300 },
          default: [],
          description:
            'Where to look for other nodes: `host:port` (all addresses of a name are tried, and looked up again) or `/ip4/…/tcp/…`.',
        },
        zone: {
          type: 'string',
          pattern: '^[ -~]{0,64}$',
          default: '',
          description: 'Label of the rack or zone this node is in; nodes with the same one are preferred.',
        },
        replication: {
          type: 'integer',
          minimum: 3,
          maximum: 5,
          default: 3,
          description: 'How many nodes keep the record of who has a chunk.',
        },
        upload_bytes_per_second: {
          type: 'integer',
          minimum: 0,
          maximum: 12_500_000_000,
          default: 0,
          description: 'Most bytes per second that this node gives to peers, in all; 0 is without limit.',
        },
        connections_max: {
          type: 'integer',
          minimum: 40,
          maximum: 4_000,
          default: 256,
          description: 'Connections to other nodes that are kept open; more nodes than that are dialled when needed.',
        },
        records_max: {
          type: 'integer',
          minimum: 10_000,
          maximum: 10_000_000,
          default: 1_000_000,
          description: 'Records of who has what that this node keeps for the swarm, at most 120 bytes each.',
        },
        memory_bytes_max: {
          type: 'integer',
          minimum: 67_108_864,
          maximum: 68_719_476_736,
          default: 1_610_612_736,
          description:
            'What the limits above, and those of chunks under way from and to peers, may add up to when every peer behaves as badly as it can; a configuration that passes it is refused.',
        },
        private_images: {
          type: 'array',
          items: { type: 'string', minLength: 1 },
          default: [],
          description:
            'Images (names as `shoal status` shows them, `*` for any characters) whose layers are neither announced nor given to neighbours.',
        },
      },
    },
    image: {
      type: 'object',
      description: 'Sections `[image."pattern"]`, for images that are treated differently.',
      additionalProperties: IMAGE,
    },
    registry: {
      type: 'object',
      description: 'Sections `[registry."host"]`, one per registry that needs one.',
      additionalProperties: REGISTRY,
    },
  },
} as const;

/** A node of the schema, as the code that walks it sees it. */
export interface SchemaNode {
  readonly type: string;
  readonly description?: string;
  readonly default?: unknown;
  readonly enum?: readonly string[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly items?: SchemaNode;
  readonly properties?: Readonly<Record<string, SchemaNode>>;
  readonly additionalProperties?: boolean | SchemaNode;
}

type Camel<Key extends string> = Key extends `${infer Head}_${infer Tail}` ? `${Head}${Capitalize<Camel<Tail>>}` : Key;

type Required<Props> = {
  [Key in keyof Props]: Props[Key] extends { default: unknown } | { type: 'object' } ? Key : never;
}[keyof Props];

type ObjectOf<Props> = {
  readonly [Key in Required<Props> & string as Camel<Key>]: ValueOf<Props[Key]>;
} & {
  readonly [Key in Exclude<keyof Props, Required<Props>> & string as Camel<Key>]?: ValueOf<Props[Key]>;
};

type ValueOf<Node> = Node extends { enum: readonly (infer Value)[] }
  ? Value
  : Node extends { type: 'string' }
    ? string
    : Node extends { type: 'integer' }
      ? number
      : Node extends { type: 'boolean' }
        ? boolean
        : Node extends { type: 'array'; items: infer Item }
          ? readonly ValueOf<Item>[]
          : Node extends { properties: infer Props }
            ? ObjectOf<Props>
            : Node extends { additionalProperties: infer Value }
              ? Readonly<Record<string, ValueOf<Value>>>
              : never;

/** The configuration in effect: the schema's keys in camelCase, deep-frozen; keys without a default may be absent. */
export type Config = ValueOf<typeof CONFIG_SCHEMA>;

/** `fault_deadline_ms` → `faultDeadlineMs`. */
export function camelCase(key: string): string {
  return key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}
