import { globSync, readFileSync } from 'node:fs';
import { dirname, isAbsolute, join } from 'node:path';
import { parse } from 'smol-toml';
import { type DoctorFinding, findingsOf } from './finding.ts';

type Table = Readonly<Record<string, unknown>>;

/** Files below the main one that are read; containerd itself has no limit. */
const MAX_IMPORTS = 64;

/** Where each version of containerd's configuration keeps the settings of CRI's images. */
const CRI_SECTION: Readonly<Record<number, readonly string[]>> = {
  2: ['plugins', 'io.containerd.grpc.v1.cri', 'containerd'],
  3: ['plugins', 'io.containerd.cri.v1.images'],
};

/** Reads the file and what it imports, later files winning; throws what reading and parsing throw. */
export function readContainerdConfig(path: string): Table {
  let merged = parse(readFileSync(path, 'utf8')) as Table;
  const imports = Array.isArray(merged.imports) ? merged.imports.map(String) : [];
  const files = imports.flatMap((name) => globSync(isAbsolute(name) ? name : join(dirname(path), name)).sort());
  for (const file of files.slice(0, MAX_IMPORTS)) merged = merge(merged, parse(readFileSync(file, 'utf8')) as Table);
  return merged;
}

function merge(below: Table, above: Table): Table {
  const merged: Record<string, unknown> = { ...below };
  for (const [key, value] of Object.entries(above)) {
    merged[key] = isTable(merged[key]) && isTable(value) ? merge(merged[key], value) : value;
  }
  return merged;
}

/** What in containerd's configuration (`path` names it) keeps it from using the snapshotter on `socket`. */
export function judgeContainerdConfig(config: Table, path: string, socket: string): DoctorFinding[] {
  const { ok, warn, fail } = findingsOf('containerd');
  const version = typeof config.version === 'number' ? config.version : 1;
  const section = CRI_SECTION[version === 4 ? 3 : version];
  if (section === undefined) {
    const fix = `put "version = 2" (containerd 1.x) or "version = 3" (2.x) at the top of ${path}`;
    return [fail(`${path} has version ${version}, which shoal does not know`, fix)];
  }
  const plugin = findPlugin(config, socket);
  if (plugin.name === undefined)
    return [fail(plugin.trouble, `add to ${path}:\n${pluginText('shoal', socket, version)}`)];
  const found = [ok(`the proxy plugin "${plugin.name}" points at ${socket}`)];
  const cri = tableAt(config, section);
  const header = `[${section.map((part) => (/^\w+$/.test(part) ? part : JSON.stringify(part))).join('.')}]`;
  if (cri?.snapshotter !== plugin.name) {
    const used = typeof cri?.snapshotter === 'string' ? cri.snapshotter : 'overlayfs';
    const fix = `for Kubernetes put into ${path}:\n${header}\n  snapshotter = "${plugin.name}"\n  disable_snapshot_annotations = false`;
    return [
      ...found,
      warn(`CRI uses the snapshotter "${used}"; only clients that ask for "${plugin.name}" are lazy`, fix),
    ];
  }
  found.push(ok(`CRI uses the snapshotter "${plugin.name}"`));
  if (cri.disable_snapshot_annotations === false) {
    found.push(ok('CRI tells the snapshotter which image a layer belongs to'));
  } else {
    const fix = `put into ${path}:\n${header}\n  disable_snapshot_annotations = false`;
    found.push(fail('CRI does not say which image a layer belongs to, so no layer can be lazy', fix));
  }
  if (cri.discard_unpacked_layers === true) {
    const fix = `put into ${path}:\n${header}\n  discard_unpacked_layers = false`;
    found.push(warn('CRI deletes layers after unpacking: an image that fell back is downloaded again and again', fix));
  }
  return found;
}

/** The text for a proxy plugin of this name. */
export function pluginText(name: string, socket: string, version: number): string {
  const lines = [`[proxy_plugins.${name}]`, '  type = "snapshot"', `  address = ${JSON.stringify(socket)}`];
  if (version >= 3) {
    lines.push(`  [proxy_plugins.${name}.exports]`, '    enable_remote_snapshot_annotations = "true"');
  }
  return lines.join('\n');
}

function findPlugin(config: Table, socket: string): { name: string } | { name: undefined; trouble: string } {
  const plugins = Object.entries(tableAt(config, ['proxy_plugins']) ?? {});
  for (const [name, plugin] of plugins) {
    if (isTable(plugin) && plugin.type === 'snapshot' && plugin.address === socket) return { name };
  }
  const shoal = plugins.find(([name]) => name === 'shoal')?.[1];
  if (!isTable(shoal)) return { name: undefined, trouble: `no proxy plugin points at ${socket}` };
  const trouble = `the proxy plugin "shoal" has type ${shoal.type} and address ${shoal.address}, not "snapshot" and ${socket}`;
  return { name: undefined, trouble };
}

function tableAt(config: Table, path: readonly string[]): Table | undefined {
  let node: unknown = config;
  for (const key of path) node = isTable(node) ? node[key] : undefined;
  return isTable(node) ? node : undefined;
}

function isTable(value: unknown): value is Table {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
