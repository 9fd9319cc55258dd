/** Places no registry may lead us to: every kind of address in every way of writing it, and names that resolve there. */

/** Refused whatever is configured: link-local, metadata, unusable, loopback. */
const NEVER = [
  ...['169.254.169.254', '169.254.170.2', '169.254.1.1', '100.100.100.200', '168.63.129.16', '192.0.0.192'],
  ...['0.1.2.3', '192.0.2.1', '198.51.100.7', '203.0.113.9', '192.88.99.1', '240.0.0.1'],
  ...['127.0.0.1', '127.0.0.53', '127.254.1.9'],
];
const PRIVATE = [
  ...['10.0.0.1', '10.255.255.254', '172.16.0.1', '172.31.255.254', '192.168.0.1', '192.168.255.254'],
  ...['100.64.0.1', '198.18.0.1'],
];
const NEVER_V6 = ['::1', 'fd00:ec2::254', 'fd20:ce::254', 'fec0::1', '2001:db8::1', '100::1', '64:ff9b:1::1'];
const PRIVATE_V6 = ['fd00::1', 'fdff:ffff::1'];

/** What names resolve to that stand for a forbidden place. */
export const FORBIDDEN_NAMES: Readonly<Record<string, string>> = {
  'metadata.google.internal': '169.254.169.254',
  'metadata.example': '100.100.100.200',
  'wire.example': '168.63.129.16',
  'intranet.example': '10.0.0.1',
  'router.example.': '192.168.0.1',
  'loop.example': '127.0.0.1',
  'loop6.example': '::1',
  'mapped.example': '::ffff:169.254.169.254',
  'nat64.example': '64:ff9b::a9fe:a9fe',
  'ula.example': 'fd00::1',
  'localhost.example': '127.0.0.1',
  '169.254.169.254.dns.example': '169.254.169.254',
};

/** Places that are refused even to a registry that may be private. */
export function neverUrls(): string[] {
  const urls = [...of(NEVER, NEVER_V6)];
  for (const name of ['localhost', 'LOCALHOST', 'localhost.', 'a.localhost', 'a.localhost.']) {
    urls.push(`https://${name}/`, `http://${name}:5000/`);
  }
  return [...urls, 'file:///etc/shadow', 'ftp://127.0.0.1/', 'gopher://127.0.0.1:5000/', 'unix:/run/x.sock'];
}

/** All that a public registry may not lead to: well over 200, all different. */
export function forbiddenUrls(): string[] {
  const names = Object.keys(FORBIDDEN_NAMES).flatMap((name) => [`https://${name}/`, `http://${name}/`]);
  return [...new Set([...neverUrls(), ...of(PRIVATE, PRIVATE_V6), ...names])];
}

function* of(v4: readonly string[], v6: readonly string[]): Generator<string> {
  for (const address of v4) {
    for (const host of spellings(address)) yield `https://${host}/latest/meta-data/`;
    yield `http://${address}/`;
    yield `https://${address}:5000/`;
  }
  for (const address of v6) {
    yield `https://[${address}]/`;
    yield `http://[${address}]/`;
  }
}

/** The addresses themselves, to show that they would be reached. */
export const FORBIDDEN_ADDRESSES: readonly string[] = [...NEVER, ...PRIVATE, ...NEVER_V6, ...PRIVATE_V6];

function spellings(address: string): string[] {
  const [a, b, c, d] = address.split('.').map(Number) as [number, number, number, number];
  const value = a * 2 ** 24 + b * 2 ** 16 + c * 2 ** 8 + d;
  const hex = value.toString(16).padStart(8, '0');
  const groups = `${hex.slice(0, 4)}:${hex.slice(4)}`;
  return [
    address,
    `${address}.`,
    String(value),
    `0x${hex}`,
    `0${value.toString(8)}`,
    [a, b, c, d].map((part) => `0${part.toString(8)}`).join('.'),
    [a, b, c, d].map((part) => `0x${part.toString(16)}`).join('.'),
    `${a}.${b * 2 ** 16 + c * 2 ** 8 + d}`,
    // Full-width digits, which host names are normalized from.
    address.replace(/\d/g, (digit) => encodeURIComponent(String.fromCodePoint(0xff10 + Number(digit)))),
    address.replace(/^\d/, (digit) => `%3${digit}`),
    `[::ffff:${address}]`,
    `[::ffff:0:${groups}]`,
    `[64:ff9b::${groups}]`,
    `[2002:${groups}::1]`,
    `[::${groups}]`,
    `[2606:4700::5efe:${groups}]`,
  ];
}
