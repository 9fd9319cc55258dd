import { existsSync, statfsSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { systemClock } from '../../clock.ts';
import type { Config } from '../../config.ts';
import { createControlClient } from '../../control/client.ts';
import { ShoalError } from '../../errors.ts';
import { formatReference, parseReference } from '../../image/reference.ts';
import { fanotifyTrap, type KernelReport, probeKernel } from '../../kernel/probe.ts';
import { createConfiguredRegistry } from '../../lazy/registry.ts';
import { silentLogger } from '../../log.ts';
import { humanBytes } from '../output.ts';
import { judgeContainerdConfig, readContainerdConfig } from './containerd-config.ts';
import { type DoctorFinding, findingsOf } from './finding.ts';

/** Below this much free space even one mid-sized image does not fit. */
const FREE_FAIL_BYTES = 1024 ** 3;
/** Below this much it is time to look. */
const FREE_WARN_BYTES = 10 * 1024 ** 3;
const REGISTRY_TIMEOUT_MS = 20_000;

/** The kernel's side: what lazy mounts need, and which trap `kind` comes to. */
export async function checkKernel(root: string, kind: Config['trap']['kind']): Promise<DoctorFinding[]> {
  const { fail } = findingsOf('kernel');
  const folder = nearestFolder(root);
  try {
    return judgeKernel(await probeKernel(folder), kind);
  } catch (error) {
    return [fail(`could not be probed in ${folder}: ${lineOf(error)}`, 'run as root: sudo shoal doctor')];
  }
}

/** What a kernel report means for this choice of trap. */
export function judgeKernel(report: KernelReport, kind: Config['trap']['kind']): DoctorFinding[] {
  const { ok, warn, fail } = findingsOf('kernel');
  const { erofs, overlay, fuse, loop, nofile } = report;
  const fanotify = fanotifyTrap(report);
  const found = [ok(`Linux ${report.release}`)];
  found.push(erofs.available ? ok(`EROFS: ${erofs.reason}`) : fail(`EROFS: ${erofs.reason}`));
  found.push(overlay.available ? ok(`overlay: ${overlay.reason}`) : fail(`overlay: ${overlay.reason}`));
  if (!overlay.append.available) found.push(warn(`overlay: ${overlay.append.reason}`));
  if (kind !== 'fuse' && fanotify.available) found.push(ok(`trap: fanotify, because ${fanotify.reason}`));
  else if (kind === 'fanotify')
    found.push(fail(`trap: fanotify does not work: ${fanotify.reason}`, 'trap.kind = "auto"'));
  else if (fuse.available) {
    const why = kind === 'fuse' ? 'trap.kind says so' : `fanotify does not work: ${fanotify.reason}`;
    found.push(kind === 'fuse' ? ok(`trap: FUSE, because ${why}`) : warn(`trap: FUSE, because ${why}`));
    if (!erofs.multiDevice.available) {
      found.push(loop.available ? ok(`loop devices: ${loop.reason}`) : fail(`loop devices: ${loop.reason}`));
    }
  } else found.push(fail(`trap: none; fanotify: ${fanotify.reason}; FUSE: ${fuse.reason}`));
  found.push(nofile.available ? ok(nofile.reason) : warn(nofile.reason, 'LimitNOFILE=1048576 in the systemd unit'));
  return found;
}

/** File system and free space of the root. */
export function checkDisk(root: string): DoctorFinding[] {
  const { ok, warn, fail } = findingsOf('disk');
  const folder = nearestFolder(root);
  const stat = statfsSync(folder);
  const free = stat.bavail * stat.bsize;
  const text = `${humanBytes(free)} of ${humanBytes(stat.blocks * stat.bsize)} free for ${root}`;
  const fix = 'remove images that are no longer used, or move root to a larger disk';
  const space = free < FREE_FAIL_BYTES ? fail(text, fix) : free < FREE_WARN_BYTES ? warn(text, fix) : ok(text);
  return existsSync(root) ? [space] : [space, ok(`${root} does not exist yet; the daemon makes it`)];
}

/** containerd: does it run, and is it told to use shoal. */
export async function checkContainerd(
  init: { socket: string; configPath: string },
  snapshotterSocket: string,
): Promise<DoctorFinding[]> {
  const { ok, warn, fail } = findingsOf('containerd');
  const found: DoctorFinding[] = [];
  if (await accepts(init.socket)) found.push(ok(`listens on ${init.socket}`));
  else
    found.push(
      warn(
        `nobody listens on ${init.socket}; without containerd only "shoal mount" works`,
        'systemctl start containerd',
      ),
    );
  if (!existsSync(init.configPath)) {
    const fix = `containerd config default > ${init.configPath}`;
    return [...found, fail(`${init.configPath} does not exist, so containerd does not know shoal`, fix)];
  }
  try {
    const config = readContainerdConfig(init.configPath);
    return [...found, ...judgeContainerdConfig(config, init.configPath, snapshotterSocket)];
  } catch (error) {
    return [...found, fail(`${init.configPath}: ${lineOf(error)}`)];
  }
}

/** The daemon itself. */
export async function checkDaemon(controlSocket: string): Promise<DoctorFinding[]> {
  const { ok, warn } = findingsOf('daemon');
  try {
    const { daemon } = await createControlClient({ socket: controlSocket }).status();
    return [ok(`shoal ${daemon.version} runs (pid ${daemon.pid}, ${daemon.trap.kind} trap: ${daemon.trap.reason})`)];
  } catch (error) {
    return [warn(lineOf(error), 'systemctl start shoal')];
  }
}

/** The registry of an image: reachable, and does it let us in. */
export async function checkRegistry(config: Config, text: string, signal: AbortSignal): Promise<DoctorFinding[]> {
  const { ok, fail } = findingsOf('registry');
  const reference = parseReference(text);
  const registry = createConfiguredRegistry(config, { log: silentLogger, clock: systemClock });
  const deadline = AbortSignal.any([signal, AbortSignal.timeout(REGISTRY_TIMEOUT_MS)]);
  try {
    const { digest } = await registry.resolve(reference, { signal: deadline });
    return [ok(`${formatReference(reference)} is ${digest}`)];
  } catch (error) {
    return [fail(`${formatReference(reference)}: ${lineOf(error)}`, adviceFor(error, reference.registry))];
  } finally {
    await registry.close();
  }
}

function adviceFor(error: unknown, host: string): string | undefined {
  const code = error instanceof ShoalError ? error.code : undefined;
  if (code === 'AUTH_REFUSED') return `docker login ${host}, or username and password_file under [registry."${host}"]`;
  if (code === 'URL_REFUSED')
    return `if this is meant: [registry."${host}"] with allow_private = true or plain_http = true`;
  return undefined;
}

/** `path`, or the first folder above it that exists. */
function nearestFolder(path: string): string {
  let folder = path;
  while (!existsSync(folder) && folder !== '/') folder = dirname(folder);
  return folder;
}

function accepts(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(socket);
    const end = (answer: boolean): void => {
      probe.destroy();
      resolve(answer);
    };
    probe.once('connect', () => end(true));
    probe.once('error', () => end(false));
    probe.setTimeout(2_000, () => end(false));
  });
}

function lineOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split('\n')[0] as string;
}
