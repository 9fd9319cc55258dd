import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { PolicyResult } from '../../../sim/result.ts';
import { runPolicy } from '../../../sim/run.ts';
import { parseScenario } from '../../../sim/scenario/parse.ts';
import type { LabHost } from '../../lab/hosts.ts';
import { claimFolder } from './work-folder.ts';

/** What tbf leaves for payload: Ethernet, IP and TCP headers of full frames. */
const PAYLOAD = 1_448 / 1_514;

/** A recording (`shoal trace record`), line by line. */
export interface Recorded {
  readonly lines: readonly Readonly<Record<string, unknown>>[];
  /** Ms until the last cold read was answered. */
  readonly ms: number;
  /** Chunks that came, their bytes, and those the registry sent for them. */
  readonly chunks: number;
  readonly bytes: number;
  readonly compressedBytes: number;
}

/** Records what `start` reads on a host that has nothing of the image. */
export async function recordStart(host: LabHost, start: () => Promise<void>): Promise<Recorded> {
  await host.shoal.post('/v1/trace', { do: 'start' });
  await start();
  const lines: Record<string, unknown>[] = [];
  for (;;) {
    const { lines: more } = await host.shoal.post<{ lines: typeof lines }>('/v1/trace', { do: 'stop' });
    lines.push(...more);
    if (more.length < 2_000) break;
  }
  const came = new Map(
    lines.filter(({ kind }) => kind === 'read' || kind === 'ahead').map((line) => [`${line.blob}/${line.row}`, line]),
  );
  const sum = (key: string): number => [...came.values()].reduce((all, line) => all + Number(line[key]), 0);
  return {
    lines,
    ms: Math.max(...lines.map(({ answeredMs }) => Number(answeredMs ?? 0))),
    chunks: came.size,
    bytes: sum('bytes'),
    compressedBytes: sum('compressedBytes'),
  };
}

/** Simulates hosts of the lab that start what was recorded; `more` is added to the scenario, after `[arrival.all]`. */
export async function simulateStarts(
  { lines }: Pick<Recorded, 'lines'>,
  init: { hosts: number; rate: string; registryRate: string; nodes?: string; more?: string },
): Promise<PolicyResult> {
  const folder = await claimFolder();
  try {
    writeFileSync(join(folder.dir, 'start.jsonl'), lines.map((line) => JSON.stringify(line)).join('\n'));
    const text = `
title = "Does it agree?"
[nodes]
count = ${init.hosts}
up_mbit_per_s = ${Number(init.rate) * PAYLOAD}
down_mbit_per_s = ${Number(init.rate) * PAYLOAD}
${init.nodes ?? ''}
[registry]
egress_mbit_per_s = ${Number(init.registryRate) * PAYLOAD}
latency_ms = 5
[shoal]
fresh = true
[image.app]
trace = "start.jsonl"
[arrival.all]
image = "app"
${init.more ?? ''}
`;
    const path = join(folder.dir, 'hosts.toml');
    return await runPolicy(parseScenario(text, { name: path }), 'shoal', {
      path,
      signal: new AbortController().signal,
    });
  } finally {
    await folder.close();
  }
}
