import { appendFileSync, existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { threadId } from 'node:worker_threads';

/** Names the folder where the processes of one test file write down what they saw of its secrets. */
export const CANARY_FOLDER = 'SHOAL_CANARY_FOLDER';

/** One thing that happened: a secret on its way to a port, a secret where none may be, or what was looked at. */
export type CanaryRecord =
  | { readonly kind: 'owner'; readonly port: number }
  | { readonly kind: 'seen'; readonly port: number; readonly where: string }
  | { readonly kind: 'leak'; readonly where: string }
  | { readonly kind: 'watched'; readonly what: string };

/** What the processes of one test file saw. */
export interface CanaryReport {
  /** Requests with a secret at servers it belongs to. */
  readonly used: number;
  /** Secrets anywhere else, as one line each. */
  readonly leaks: readonly string[];
  /** How many processes and threads had what to look at. */
  readonly watched: Readonly<Record<string, number>>;
}

/** Writes a record down at once: the process may be killed any moment. Nothing outside a run of the tests. */
export function recordCanary(record: CanaryRecord): void {
  const folder = process.env[CANARY_FOLDER];
  if (folder === undefined || !existsSync(folder)) return;
  appendFileSync(join(folder, `${process.pid}-${threadId}`), `${JSON.stringify(record)}\n`);
}

/** Reads what was written to `folder`. */
export function readCanaryReport(folder: string): CanaryReport {
  const records = readdirSync(folder).flatMap((name) => parse(readFileSync(join(folder, name), 'utf8')));
  const owners = new Set(records.flatMap((record) => (record.kind === 'owner' ? [record.port] : [])));
  let used = 0;
  const leaks = new Set<string>();
  const watched: Record<string, number> = {};
  for (const record of records) {
    if (record.kind === 'watched') watched[record.what] = (watched[record.what] ?? 0) + 1;
    if (record.kind === 'leak') leaks.add(record.where);
    if (record.kind !== 'seen') continue;
    if (owners.has(record.port)) used += 1;
    else leaks.add(`${record.where}, port ${record.port}, which none belongs to`);
  }
  return { used, leaks: [...leaks].sort(), watched };
}

function parse(text: string): CanaryRecord[] {
  const lines = text.split('\n');
  lines.pop(); // what follows the last newline: nothing, or a line that a kill cut short
  return lines.map((line) => JSON.parse(line) as CanaryRecord);
}
