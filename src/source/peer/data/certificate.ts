import { generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto';

/** A private key and its certificate, PEM. */
export interface KeyAndCertificate {
  readonly key: string;
  readonly cert: string;
}

/**
 * A fresh ECDSA P-256 key with a self-signed X.509 v3 certificate (RFC 5280 §4.1, RFC 5758 §3.2) that names nobody and
 * does not expire: neighbours pin its hash, so dates and names say nothing. The libraries that make certificates bring
 * twenty packages for these few lines of DER.
 */
export function makeSelfSigned(): KeyAndCertificate {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const algorithm = sequence(objectId(ECDSA_WITH_SHA256));
  const name = sequence(der(SET, sequence(objectId(COMMON_NAME), der(UTF8_STRING, Buffer.from('shoal')))));
  const toBeSigned = sequence(
    der(CONTEXT_0, der(INTEGER, Buffer.from([2]))),
    der(INTEGER, serialNumber()),
    algorithm,
    name,
    sequence(der(GENERALIZED_TIME, NOT_BEFORE), der(GENERALIZED_TIME, NOT_AFTER)),
    name,
    publicKey.export({ type: 'spki', format: 'der' }),
  );
  const certificate = sequence(
    toBeSigned,
    algorithm,
    der(BIT_STRING, Buffer.concat([NO_SPARE_BITS, signed(toBeSigned, privateKey)])),
  );
  return { key: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string, cert: pem('CERTIFICATE', certificate) };
}

const INTEGER = 0x02;
const BIT_STRING = 0x03;
const OBJECT_ID = 0x06;
const UTF8_STRING = 0x0c;
const GENERALIZED_TIME = 0x18;
const SEQUENCE = 0x30;
const SET = 0x31;
const CONTEXT_0 = 0xa0;
const NO_SPARE_BITS = Buffer.from([0]);
/** Clocks of nodes differ: long past, and the value that means "no well-defined end" (RFC 5280 §4.1.2.5). */
const NOT_BEFORE = Buffer.from('20200101000000Z');
const NOT_AFTER = Buffer.from('99991231235959Z');
/** 1.2.840.10045.4.3.2 and 2.5.4.3, as their content is coded. */
const ECDSA_WITH_SHA256 = Buffer.from('2a8648ce3d040302', 'hex');
const COMMON_NAME = Buffer.from('550403', 'hex');

/** A one and 15 random bytes: positive, and coded as short as DER wants it. */
function serialNumber(): Uint8Array {
  const bytes = randomBytes(16);
  bytes[0] = 0x01;
  return bytes;
}

function signed(bytes: Uint8Array, key: KeyObject): Uint8Array {
  return sign('sha256', bytes, { key, dsaEncoding: 'der' });
}

function sequence(...parts: readonly Uint8Array[]): Uint8Array {
  return der(SEQUENCE, Buffer.concat(parts));
}

function objectId(content: Uint8Array): Uint8Array {
  return der(OBJECT_ID, content);
}

function der(tag: number, content: Uint8Array): Uint8Array {
  const { length } = content;
  const size = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...size]), content]);
}

function pem(label: string, content: Uint8Array): string {
  const lines =
    Buffer.from(content)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}
