/** How the secrets of tests begin, so that they are known wherever they turn up. */
export const CANARY = 'canary-';

/** What base64 makes of `text` wherever it starts within a group of three bytes, without what its neighbours decide. */
function base64Forms(text: string): string[] {
  return [0, 1, 2].map((before) => {
    const whole = Buffer.from(`${'x'.repeat(before)}${text}`).toString('base64url');
    return whole.slice(Math.ceil((before * 8) / 6), Math.floor(((before + text.length) * 8) / 6));
  });
}

const NEEDLES = [CANARY, Buffer.from(CANARY).toString('hex'), ...base64Forms(CANARY)];
const NEEDLE_BYTES = NEEDLES.map((needle) => Buffer.from(needle));

/** Whether a secret of a test is in it: as it is, in hex, or in base64 (a login, a part of a JWT). */
export function hasCanary(text: string | Uint8Array): boolean {
  if (typeof text === 'string') return NEEDLES.some((needle) => text.includes(needle));
  const bytes = Buffer.from(text.buffer, text.byteOffset, text.byteLength);
  return NEEDLE_BYTES.some((needle) => bytes.includes(needle));
}
