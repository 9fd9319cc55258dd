/**
 * The swarm's part of the demo: three hosts on one switch, each with its own containerd and shoal, and a registry behind
 * a slow link. The first host pays for the image, the others get it from their neighbours, the last one without a
 * registry.
 */
import type { ImageExplanation } from '../src/control/explain.ts';
import { type LabHost, type LabHosts, withHosts } from '../test/lab/hosts.ts';
import type { LabImages } from '../test/lab/images.ts';
import { connected, settled, swarmSection } from '../test/lab/swarm.ts';

const HELLO = 'python3 /srv/app/hello.py';
const REGISTRY_RATE = '50mbit';
const MIB = 1024 * 1024;

type Say = (line: string) => void;

/** Runs it; throws when a container does not print what it should. */
export async function demoSwarm(images: LabImages, say: Say): Promise<void> {
  say('');
  say(`three hosts on a 1 Gbit/s switch, each with containerd and shoal; the registry is behind ${REGISTRY_RATE}`);
  const init = { count: 3, storage: images.storage, registryRate: REGISTRY_RATE, config: swarmSection };
  await withHosts(init, async (lab) => {
    await connected(lab, lab.hosts, 2);
    const image = `${lab.registry}/${images.estargz}`;
    const [first, second, third] = lab.hosts as [LabHost, LabHost, LabHost];
    say('');
    say(row('', 'time', 'registry sent', 'from registry', 'from neighbours', '  output'));
    await start(lab, first, image, 'cold, nobody has it', say);
    await start(lab, second, image, 'cold, a neighbour has it', say);
    await third.pull(image);
    await lab.plugRegistry(false);
    await start(lab, third, image, 'cold, the registry is unplugged', say);
    await printSources(third, image, say);
  });
}

async function start(lab: LabHosts, host: LabHost, image: string, title: string, say: Say): Promise<void> {
  const sentBefore = await lab.registrySent();
  const begun = performance.now();
  const { status, stdout, stderr } = await host.run(image, HELLO);
  const seconds = (performance.now() - begun) / 1000;
  if (status !== 0) throw new Error(`the container of ${host.name} failed: ${stderr}`);
  await settled([host]);
  const { bytesBySource } = await host.status();
  const sent = (await lab.registrySent()) - sentBefore;
  say(
    row(
      `${host.name}: ${title}`,
      `${seconds.toFixed(2)} s`,
      mib(sent),
      mib(bytesBySource.origin),
      mib(bytesBySource.neighbour),
      `  ${stdout.trim()}`,
    ),
  );
}

/** What `shoal explain` knows of the image on this host. */
async function printSources(host: LabHost, image: string, say: Say): Promise<void> {
  const report = await host.shoal.get<ImageExplanation>(`/v1/explain?target=${encodeURIComponent(image)}`);
  say('');
  say(`  where the bytes of ${host.name} came from`);
  for (const [source, { chunks, bytes, meanMs }] of Object.entries(report.sources)) {
    if (bytes > 0) say(`    ${source.padEnd(10)} ${mib(bytes)} in ${chunks} chunks, ${meanMs} ms each`);
  }
  for (const { peer, chunks } of report.peers) say(`    neighbour ${peer} gave ${chunks} chunks`);
}

function row(title: string, ...cells: string[]): string {
  const output = cells.pop() as string;
  return `  ${title.padEnd(36)} ${cells.map((cell) => cell.padStart(15)).join(' ')} ${output}`;
}

function mib(bytes = 0): string {
  return `${(bytes / MIB).toFixed(1)} MiB`;
}
