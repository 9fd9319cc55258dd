import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ProcessIdentity } from '../../kernel/pidfd.ts';

const VERSION = 1;

/** `<runDir>/keeper.json`: which process keeps the group, and for whom. */
export interface KeeperRecord {
  readonly keeper: ProcessIdentity;
  /** The daemon that wrote this. */
  readonly daemon: ProcessIdentity;
}

/** The record of this boot; undefined when there is none, or one of another boot or version. Never throws. */
export function readKeeperRecord(runDir: string): KeeperRecord | undefined {
  try {
    const text = readFileSync(recordPath(runDir), 'utf8');
    const { version, bootId, keeper, daemon } = JSON.parse(text) as Record<string, unknown>;
    if (version !== VERSION || bootId !== currentBootId()) return undefined;
    if (!isIdentity(keeper) || !isIdentity(daemon)) return undefined;
    return { keeper, daemon };
  } catch {
    return undefined;
  }
}

/** Replaces the record as a whole. */
export function writeKeeperRecord(runDir: string, record: KeeperRecord): void {
  const next = `${recordPath(runDir)}.new`;
  writeFileSync(next, `${JSON.stringify({ version: VERSION, bootId: currentBootId(), ...record })}\n`, { mode: 0o600 });
  renameSync(next, recordPath(runDir));
}

/** Removes the record: the trap was closed in order. */
export function removeKeeperRecord(runDir: string): void {
  rmSync(recordPath(runDir), { force: true });
}

function recordPath(runDir: string): string {
  return join(runDir, 'keeper.json');
}

function currentBootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
}

function isIdentity(value: unknown): value is ProcessIdentity {
  const { pid, startTime } = (value ?? {}) as Record<string, unknown>;
  return Number.isSafeInteger(pid) && (pid as number) > 0 && Number.isSafeInteger(startTime);
}
