import { hasCode } from '../errors.ts';
import { parseReference } from '../image/reference.ts';
import { createConfiguredPolicy } from '../lazy/registry.ts';
import { addDragonfly, DRAGONFLY_PORTS, detectDragonfly, type SetupStep } from '../source/mirror/dragonfly-setup.ts';
import type { Command, Invocation } from './command.ts';
import { EXIT, UsageError } from './exit-code.ts';
import { printable } from './output.ts';

const DEFAULT_URL = `http://127.0.0.1:${DRAGONFLY_PORTS.proxy}`;
const DEFAULT_PING = `http://127.0.0.1:${DRAGONFLY_PORTS.health}/healthy`;
/** Registries that get an entry when none is named. */
const ALL = '_default';

/** `shoal dragonfly init`: makes a Dragonfly client on this node a mirror. */
export const dragonflyCommand: Command = {
  name: 'dragonfly',
  args: 'init [REGISTRY…]',
  argCount: { min: 1, max: 64 },
  summary: 'use a Dragonfly client on this node as a mirror',
  description:
    'Finds a Dragonfly client on its default ports and adds it to the `hosts.toml` of each REGISTRY (`docker.io`,\n`registry.example:5000`), or of `_default`, which counts for registries without a folder of their own. Entries that\nare there stay as they are, after the new one. containerd reads the same files.',
  options: {
    'dry-run': { type: 'boolean', description: 'print what would be written, write nothing' },
    url: { type: 'string', value: 'URL', description: `the client's proxy (default ${DEFAULT_URL})` },
    'ping-url': { type: 'string', value: 'URL', description: `its health check (default ${DEFAULT_PING})` },
  },
  async run(invocation) {
    const [verb, ...registries] = invocation.args;
    if (verb !== 'init') throw new UsageError(`unknown: ${verb}; there is: shoal dragonfly init`, 'dragonfly');
    const { options, io } = invocation;
    const url = origin(options.url ?? DEFAULT_URL);
    const found = await detectDragonfly({ url, pingUrl: String(options['ping-url'] ?? DEFAULT_PING) });
    io.out(`found a Dragonfly client at ${printable(found.url)}\n`);
    for (const step of await setUp(invocation, found, registries.length === 0 ? [ALL] : registries)) {
      io.out(describe(step, options['dry-run'] === true));
    }
    return EXIT.ok;
  },
};

async function setUp(
  { config, options }: Invocation,
  found: Awaited<ReturnType<typeof detectDragonfly>>,
  registries: readonly string[],
): Promise<SetupStep[]> {
  const effective = config();
  const policy = createConfiguredPolicy(effective);
  const named = registries.map((name) => {
    if (name === ALL) return { registry: name, upstream: undefined };
    const registry = parseRegistry(name);
    return { registry, upstream: policy.registry(registry, '/v2/').url.origin };
  });
  const steps: SetupStep[] = [];
  for (const each of named) {
    const init = { ...each, root: effective.mirrors.configPath, dryRun: options['dry-run'] === true };
    steps.push(await addDragonfly(found, init));
  }
  return steps;
}

function parseRegistry(name: string): string {
  try {
    const { registry } = parseReference(`${name}/image`);
    if (registry === name.toLowerCase()) return registry;
  } catch (error) {
    if (!hasCode(error, 'INVALID_REFERENCE')) throw error;
  }
  throw new UsageError(`${JSON.stringify(name)} is not a registry such as docker.io or host:5000`, 'dragonfly');
}

function origin(text: unknown): string {
  const url = URL.parse(String(text));
  if (url === null || !/^https?:$/.test(url.protocol))
    throw new UsageError('--url must be an http(s) URL', 'dragonfly');
  return url.origin;
}

function describe({ file, action, why, text }: SetupStep, dryRun: boolean): string {
  const past = { written: 'wrote', extended: 'added an entry to', kept: 'left alone' } as const;
  const future = { written: 'would write', extended: 'would add an entry to', kept: 'would leave alone' } as const;
  const head = `${(dryRun ? future : past)[action]} ${printable(file)}${why === undefined ? '' : `: ${printable(why)}`}\n`;
  const body = text === undefined ? '' : text.trimEnd().replaceAll(/^/gm, '    ').replaceAll(/ +$/gm, '');
  return head + (body === '' ? '' : `${body}\n`);
}
