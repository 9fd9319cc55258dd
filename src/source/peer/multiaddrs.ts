import { isIPv4, isIPv6 } from 'node:net';
import type { Multiaddr } from '@multiformats/multiaddr';

/** Host and port of a TCP address; undefined for any other kind. IPv4 within IPv6 is given as IPv4. */
export function hostAndPort(address: Multiaddr): { host: string; port: number } | undefined {
  let host: string | undefined;
  let port: number | undefined;
  for (const { name, value } of address.getComponents()) {
    if (name === 'ip4' || name === 'ip6') host = value;
    else if (name === 'tcp') port = Number(value);
  }
  if (host === undefined || port === undefined) return undefined;
  return { host: plainHost(host), port };
}

/** `::ffff:10.0.0.1` → `10.0.0.1`; other addresses as they are. */
export function plainHost(host: string): string {
  const mapped = /^(?:::ffff:|0:0:0:0:0:ffff:)(.+)$/i.exec(host)?.[1];
  if (mapped === undefined) return host;
  if (isIPv4(mapped)) return mapped;
  const words = mapped.split(':').map((word) => Number.parseInt(word, 16));
  const [high = 0, low = 0] = words;
  return words.length === 2 ? `${high >> 8}.${high & 255}.${low >> 8}.${low & 255}` : host;
}

/** The text of a TCP address, with the peer id it must have when `id` is given. */
export function multiaddrText({ host, port, id }: { host: string; port: number; id?: string | undefined }): string {
  const family = isIPv6(host) ? 'ip6' : 'ip4';
  return `/${family}/${host}/tcp/${port}${id === undefined ? '' : `/p2p/${id}`}`;
}
