import { BlockList, isIP } from 'node:net';

/**
 * What an IP address reaches. `forbidden` ones are never connected to: unspecified, link-local, cloud metadata,
 * multicast, reserved.
 */
export type AddressClass = 'public' | 'private' | 'loopback' | 'forbidden';

type Net = readonly [network: string, prefix: number];

// IANA special-purpose registries, and the metadata services that lie outside link-local.
const FORBIDDEN_V4: readonly Net[] = [
  ['0.0.0.0', 8],
  ['169.254.0.0', 16],
  ['192.0.0.0', 24], // includes 192.0.0.192, metadata of Oracle Cloud
  ['192.0.2.0', 24],
  ['192.88.99.0', 24],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 3],
  ['100.100.100.200', 32], // metadata of Alibaba Cloud
  ['168.63.129.16', 32], // wire server of Azure
];
const PRIVATE_V4: readonly Net[] = [
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['172.16.0.0', 12],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
];
const FORBIDDEN_V6: readonly Net[] = [
  ['::', 128],
  ['64:ff9b:1::', 48],
  ['100::', 64],
  ['2001::', 23],
  ['2001:db8::', 32],
  ['3fff::', 20],
  ['5f00::', 16],
  ['fe80::', 10],
  ['fec0::', 10],
  ['ff00::', 8],
  ['fd00:ec2::254', 128], // metadata of AWS
  ['fd20:ce::254', 128], // metadata of Google Cloud
];
const PRIVATE_V6: readonly Net[] = [['fc00::', 7]];

const forbidden = list(FORBIDDEN_V4, FORBIDDEN_V6);
const privates = list(PRIVATE_V4, PRIVATE_V6);
const loopback = list([['127.0.0.0', 8]], [['::1', 128]]);

/**
 * Classifies a literal address, IPv4 within IPv6 (mapped, NAT64, 6to4, compatible, ISATAP) by the IPv4 one or its own
 * class, whichever reaches less; not an address: `forbidden`.
 */
export function classifyAddress(address: string): AddressClass {
  const family = isIP(address);
  if (family === 4) return classify(address, 'ipv4');
  if (family !== 6 || address.includes('%')) return 'forbidden';
  const inner = embeddedV4(address);
  const own = classify(address, 'ipv6');
  if (inner === undefined || own !== 'public') return own;
  return classify(inner, 'ipv4');
}

function classify(address: string, family: 'ipv4' | 'ipv6'): AddressClass {
  if (forbidden.check(address, family)) return 'forbidden';
  if (loopback.check(address, family)) return 'loopback';
  return privates.check(address, family) ? 'private' : 'public';
}

/** The IPv4 address that packets to this IPv6 address end at, if any. */
function embeddedV4(address: string): string | undefined {
  const groups = expand(address);
  const dotted = (high: number, low: number): string => `${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`;
  const [a, b, c, d, e, f, g, h] = groups as [number, number, number, number, number, number, number, number];
  const zeros = a === 0 && b === 0 && c === 0 && d === 0;
  if (zeros && e === 0 && f === 0xffff) return dotted(g, h);
  if (zeros && e === 0xffff && f === 0) return dotted(g, h);
  if (zeros && e === 0 && f === 0 && (g !== 0 || h > 1)) return dotted(g, h);
  if (a === 0x64 && b === 0xff9b && c === 0 && d === 0 && e === 0 && f === 0) return dotted(g, h);
  if (a === 0x2002) return dotted(b, c);
  // ISATAP (RFC 5214), below any prefix.
  if ((e === 0 || e === 0x200) && f === 0x5efe) return dotted(g, h);
  return undefined;
}

/** The eight groups of a valid IPv6 address. */
function expand(address: string): number[] {
  // The URL parser writes the canonical form: no dotted quad, at most one "::".
  const canonical = new URL(`http://[${address}]/`).hostname.slice(1, -1);
  const [head = '', tail] = canonical.split('::');
  const parse = (text: string): number[] =>
    text === '' ? [] : text.split(':').map((group) => Number.parseInt(group, 16));
  const left = parse(head);
  if (tail === undefined) return left;
  const right = parse(tail);
  return [...left, ...new Array<number>(8 - left.length - right.length).fill(0), ...right];
}

function list(v4: readonly Net[], v6: readonly Net[]): BlockList {
  const blocks = new BlockList();
  for (const [network, prefix] of v4) blocks.addSubnet(network, prefix, 'ipv4');
  for (const [network, prefix] of v6) blocks.addSubnet(network, prefix, 'ipv6');
  return blocks;
}
