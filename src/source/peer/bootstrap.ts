import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { ShoalError } from '../../errors.ts';

/** Where to look for the swarm: a host, by address or by name, and a port. */
export interface BootstrapEntry {
  readonly host: string;
  readonly port: number;
  /** Who must answer; undefined takes any member of the swarm. */
  readonly id: string | undefined;
}

/** Addresses of one name that are tried: more than that many nodes tell of each other. */
const ADDRESSES_PER_NAME = 32;

/**
 * Parses `host:port`, `[v6]:port`, or a multiaddr (`/ip4|ip6|dns|dns4|dns6/host/tcp/port[/p2p/id]`). Throws CONFIG_INVALID.
 */
export function parseBootstrap(text: string): BootstrapEntry {
  const address =
    /^\/(?:ip4|ip6|dns|dns4|dns6)\/([^/]+)\/tcp\/(\d{1,5})(?:\/p2p\/([1-9A-HJ-NP-Za-km-z]{20,80}))?$/.exec(text);
  const plain = /^(?:\[([0-9a-fA-F:]+)\]|([A-Za-z0-9._-]+)):(\d{1,5})$/.exec(text);
  const host = address?.[1] ?? plain?.[1] ?? plain?.[2];
  const port = Number(address?.[2] ?? plain?.[3]);
  if (host === undefined || !(port >= 1 && port <= 65_535)) {
    const shown = JSON.stringify(text.slice(0, 100));
    throw new ShoalError('CONFIG_INVALID', `swarm.bootstrap: ${shown}: expected host:port or /ip4/ADDRESS/tcp/PORT`);
  }
  return { host, port, id: address?.[3] };
}

/** Parses `address:port` or `[v6]:port`. Throws CONFIG_INVALID. */
export function parseListen(text: string): { host: string; port: number } {
  const match = /^(?:\[([0-9a-fA-F:]+)\]|([0-9.]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2] ?? '';
  const port = Number(match?.[3]);
  if (isIP(host) === 0 || !(port >= 1 && port <= 65_535)) {
    throw new ShoalError('CONFIG_INVALID', `swarm.listen: ${JSON.stringify(text)}: expected an address and a port`);
  }
  return { host, port };
}

/** All addresses an entry stands for now: a name may gain and lose some. None when it can't be resolved. */
export async function resolveBootstrap(entry: BootstrapEntry): Promise<BootstrapEntry[]> {
  if (isIP(entry.host) !== 0) return [entry];
  try {
    const found = await lookup(entry.host, { all: true });
    return found.slice(0, ADDRESSES_PER_NAME).map(({ address }) => ({ ...entry, host: address }));
  } catch {
    return [];
  }
}
