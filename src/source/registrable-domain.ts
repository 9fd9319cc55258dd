import { isIP } from 'node:net';

// Suffixes under which strangers own names; enough for hosts that registries and their token servers live on. A suffix
// that is missing here only makes the comparison wider by one label, within what the registry's own answer already names.
const SHARED_SUFFIXES = new Set([
  'amazonaws.com',
  'amazonaws.com.cn',
  'azurecr.io',
  'azurewebsites.net',
  'blogspot.com',
  'cloudapp.net',
  'cloudfront.net',
  'digitaloceanspaces.com',
  'fly.dev',
  'github.io',
  'gitlab.io',
  'herokuapp.com',
  'netlify.app',
  'ngrok.io',
  'nip.io',
  'onrender.com',
  'pages.dev',
  'pkg.dev',
  'r2.dev',
  'run.app',
  'sslip.io',
  'svc.cluster.local',
  'vercel.app',
  'web.app',
  'windows.net',
  'workers.dev',
]);
const SECOND_LEVEL = new Set(['ac', 'co', 'com', 'edu', 'go', 'gob', 'gov', 'mil', 'ne', 'net', 'nom', 'or', 'org']);

/** True when both host names (no port) belong to one owner: the same name below the same public suffix. */
export function sameRegistrableDomain(a: string, b: string): boolean {
  const own = registrableDomain(a);
  return own !== undefined && own === registrableDomain(b);
}

/** The name an owner registers: `auth.example.co.uk` gives `example.co.uk`; undefined for addresses and single labels. */
export function registrableDomain(host: string): string | undefined {
  const name = host.toLowerCase().replace(/\.$/, '');
  if (isIP(name.replace(/^\[|\]$/g, '')) !== 0) return undefined;
  const labels = name.split('.');
  if (labels.length < 2 || labels.includes('')) return undefined;
  for (let count = Math.min(labels.length, 3); count >= 2; count -= 1) {
    if (SHARED_SUFFIXES.has(labels.slice(-count).join('.'))) return owned(labels, count);
  }
  const countryCode = (labels.at(-1) as string).length === 2 && SECOND_LEVEL.has(labels.at(-2) as string);
  return owned(labels, countryCode ? 2 : 1);
}

function owned(labels: readonly string[], suffixLabels: number): string | undefined {
  return labels.length > suffixLabels ? labels.slice(-suffixLabels - 1).join('.') : undefined;
}
