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
            'Fetch before it is asked for what an image starts with: what the image itself marks (eStargz landmark), and the program of its config with the libraries it names.',
        },
        background: {
          type: 'boolean',
          default: false,
          description: 'Go on and fetch the rest of each mounted layer, so that it works with the registry gone.',
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
