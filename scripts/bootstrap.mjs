/**
 * Makes a machine ready and then runs a script: `node scripts/bootstrap.mjs [--no-tools] [SCRIPT ARGS…]`.
 * Plain JavaScript for any Node >= 18, because it runs before the right Node is there. Every step is skipped when its
 * result already exists. Exit code: the script's; 70 when the machine could not be made ready.
 */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const NODE = join(ROOT, 'node_modules/.bin/node');

/** A program the tests and the demo call, and the Debian package it comes from. */
const TOOLS = [
  ['containerd', 'containerd'],
  ['runc', 'runc'],
  ['docker-registry', 'docker-registry'],
  ['fsck.erofs', 'erofs-utils'],
  ['skopeo', 'skopeo'],
  ['buildah', 'buildah'],
  ['umoci', 'umoci'],
  ['mmdebstrap', 'mmdebstrap'],
  ['ctr-remote', 'stargz-snapshotter'],
  ['fusermount3', 'fuse3'],
  ['tc', 'iproute2'],
  ['strace', 'strace'],
  ['setfattr', 'attr'],
  ['mkfs.xfs', 'xfsprogs'],
  ['chromium', 'chromium'],
  ['nginx', 'nginx-light'],
];

/** While this file exists Debian packages do not start the services they bring. */
const SERVICE_POLICY = '/usr/sbin/policy-rc.d';

main();

function main() {
  const args = process.argv.slice(2);
  const withTools = args[0] !== '--no-tools';
  if (!withTools) args.shift();
  installPackages();
  if (withTools) installTools();
  if (args.length > 0) runScript(args);
}

/**
 * `npm ci`, unless node_modules already holds exactly what package-lock.json names. Some versions of npm refuse a lock
 * that leaves out optional packages of other platforms; then `npm install --no-save`, which keeps to the lock and does
 * not write it. Either way the result is held against the lock.
 */
function installPackages() {
  const stale = whyStale();
  if (stale === undefined) return;
  say(`${stale}: running npm ci`);
  if (!runNpm(['ci'])) {
    say('npm ci failed: running npm install --no-save, and comparing the result with package-lock.json');
    if (!runNpm(['install', '--no-save'])) fail('npm could not install the packages; its own message is above');
  }
  const after = whyStale();
  if (after !== undefined) fail(`${after}, also after installing; are install scripts disabled (ignore-scripts)?`);
}

function runNpm(args) {
  const npm = spawnSync('npm', [...args, '--no-fund', '--no-audit'], { cwd: ROOT, stdio: 'inherit' });
  if (npm.error !== undefined) fail(`npm could not be started: ${npm.error.message}`);
  return npm.status === 0;
}

/** Why node_modules can't be used as it is; undefined when it can. */
function whyStale() {
  const wanted = readPackages('package-lock.json');
  const present = readPackages('node_modules/.package-lock.json');
  if (wanted === undefined) fail('package-lock.json is missing or is not JSON');
  if (present === undefined) return 'node_modules is missing';
  for (const [path, { version, optional }] of Object.entries(wanted)) {
    if (path === '' || (optional === true && present[path] === undefined)) continue;
    if (present[path]?.version !== version) return `${path} is not at version ${version}`;
  }
  const node = spawnSync(NODE, ['--version'], { encoding: 'utf8' });
  return node.status === 0 ? undefined : 'node_modules/.bin/node does not run';
}

function readPackages(path) {
  try {
    return JSON.parse(readFileSync(join(ROOT, path), 'utf8')).packages;
  } catch {
    return undefined;
  }
}

/** Installs missing Debian tools when it may; otherwise says what is missing and goes on: tests skip by name. */
function installTools() {
  const missing = missingTools();
  if (missing.length === 0) return;
  const packages = [...new Set(missing.map(([, name]) => name))];
  const command = `apt-get install -y --no-install-recommends ${packages.join(' ')}`;
  if (process.getuid?.() !== 0 || !onPath('apt-get')) {
    say(`missing tools: ${packages.join(' ')}; what needs them will be skipped. To install: sudo ${command}`);
    return;
  }
  say(`missing tools: ${packages.join(' ')}; installing them from this machine's Debian sources`);
  const holdsServices = !existsSync(SERVICE_POLICY);
  if (holdsServices) writeFileSync(SERVICE_POLICY, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  const remove = () => holdsServices && rmSync(SERVICE_POLICY, { force: true });
  process.once('exit', remove);
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  for (const line of ['apt-get update', command]) {
    const [program, ...rest] = line.split(' ');
    const done = spawnSync(program, rest, { stdio: ['ignore', 'inherit', 'inherit'], env });
    if (done.status !== 0) say(`"${line}" ended with status ${done.status}; going on`);
  }
  remove();
  const still = missingTools().map(([program]) => program);
  if (still.length > 0) say(`still missing: ${still.join(' ')}; what needs them will be skipped`);
}

function missingTools() {
  return TOOLS.filter(([program]) => !onPath(program));
}

/** Debian keeps administrators' tools in sbin, which is not on everyone's PATH. */
function searchPath() {
  const known = (process.env.PATH ?? '').split(':').filter((folder) => folder !== '');
  return [...new Set([...known, '/usr/local/sbin', '/usr/sbin', '/sbin'])];
}

function onPath(program) {
  return searchPath().some((folder) => existsSync(join(folder, program)));
}

function runScript(args) {
  const env = { ...process.env, PATH: searchPath().join(':') };
  const child = spawn(NODE, args, { cwd: ROOT, stdio: 'inherit', env });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  child.on('error', (error) => fail(error.message));
  child.on('exit', (code, signal) => {
    process.exitCode = code ?? (signal === 'SIGINT' ? 130 : 143);
  });
}

function say(message) {
  process.stderr.write(`setup: ${message}\n`);
}

function fail(message) {
  say(message);
  process.exit(70);
}
