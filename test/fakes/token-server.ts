import { execFile } from 'node:child_process';
import { randomUUID, sign, X509Certificate } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { CANARY } from '../canary/needles.ts';
import { ownsSecrets } from '../canary/owner.ts';

const run = promisify(execFile);

/** A key and a certificate for 127.0.0.1 that signs itself, as files and as text. */
export interface TestCertificate {
  readonly certPath: string;
  readonly keyPath: string;
  readonly cert: string;
  readonly key: string;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Makes one with openssl. */
export async function makeCertificate(): Promise<TestCertificate> {
  const folder = await mkdtemp(join(tmpdir(), 'shoal-cert-'));
  const certPath = join(folder, 'cert.pem');
  const keyPath = join(folder, 'key.pem');
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  const names = ['-subj', '/CN=shoal test', '-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost'];
  await run('openssl', ['req', '-x509', ...kind, ...names, '-keyout', keyPath, '-out', certPath], { timeout: 30_000 });
  const [cert, key] = await Promise.all([readFile(certPath, 'utf8'), readFile(keyPath, 'utf8')]);
  const dispose = (): Promise<void> => rm(folder, { recursive: true, force: true });
  return { certPath, keyPath, cert, key, [Symbol.asyncDispose]: dispose };
}

/**
 * A token server (distribution spec, token.md and jwt.md) that real registries believe: JWT signed with ES256 over HTTPS.
 * Who knows the password gets what they ask for, others pull of `public/…`.
 */
export class TokenServer {
  readonly #server: Server;
  readonly #certificate: TestCertificate;
  /** Change them at any time. */
  username = 'robot';
  password = 'canary-token-password';
  expiresInSec = 300;
  /** Requests so far, by their Authorization header. */
  readonly requests: { readonly path: string; readonly authorization: string | undefined }[] = [];

  private constructor(server: Server, certificate: TestCertificate) {
    this.#server = server;
    this.#certificate = certificate;
    server.on('request', (request, response) => this.#answer(request, response));
  }

  static async start(certificate: TestCertificate): Promise<TokenServer> {
    const server = createServer({ cert: certificate.cert, key: certificate.key });
    const made = new TokenServer(server, certificate);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    ownsSecrets(`:${(server.address() as AddressInfo).port}`);
    return made;
  }

  /** What docker-registry has to know of it. */
  get registryConfig(): object {
    const { port } = this.#server.address() as AddressInfo;
    const realm = `https://127.0.0.1:${port}/token`;
    return { realm, service: 'shoal-test', issuer: 'shoal-test', rootcertbundle: this.#certificate.certPath };
  }

  close(): Promise<void> {
    this.#server.closeAllConnections();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const { authorization } = request.headers;
    this.requests.push({ path: request.url ?? '', authorization });
    const login = `Basic ${Buffer.from(`${this.username}:${this.password}`).toString('base64')}`;
    if (authorization !== undefined && authorization !== login) {
      response.writeHead(401).end();
      return;
    }
    const scopes = new URL(request.url ?? '', 'https://x').searchParams.getAll('scope');
    const access = scopes.flatMap((scope) => {
      const [, type, name, actions] = /^(\w+):(.+):([\w,*]*)$/.exec(scope) ?? [];
      const granted = authorization === login || name?.startsWith('public/') ? (actions ?? '').split(',') : [];
      return granted.length === 0 ? [] : [{ type, name, actions: granted }];
    });
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ token: this.#token(access), expires_in: this.expiresInSec }));
  }

  #token(access: readonly object[]): string {
    const nowSec = Math.floor(Date.now() / 1000);
    const x5c = [new X509Certificate(this.#certificate.cert).raw.toString('base64')];
    const claims = {
      ...{ iss: 'shoal-test', sub: this.username, aud: 'shoal-test', access, jti: `${CANARY}${randomUUID()}` },
      ...{ exp: nowSec + this.expiresInSec, nbf: nowSec - 1, iat: nowSec },
    };
    const text = [{ typ: 'JWT', alg: 'ES256', x5c }, claims].map(encode).join('.');
    const signature = sign('sha256', Buffer.from(text), { key: this.#certificate.key, dsaEncoding: 'ieee-p1363' });
    return `${text}.${signature.toString('base64url')}`;
  }
}

function encode(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}
