import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run, startDaemon, waitFor } from './process.ts';
import { freePort } from './registry.ts';

/** A real nginx on loopback. */
export interface LabNginx {
  /** `http://127.0.0.1:port` */
  readonly url: string;
  stop(): Promise<void>;
}

const TEMP = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'] as const;

/** nginx as a plain caching mirror of one registry: slices of 1 MiB are kept, manifests are not. Its files are below `dir`. */
export async function startCachingMirror(init: { dir: string; upstream: string }): Promise<LabNginx> {
  const { dir, upstream } = init;
  const port = await freePort();
  await mkdir(join(dir, 'temp'), { recursive: true });
  const temp = TEMP.map((name) => `${name}_temp_path ${dir}/temp/${name};`);
  const config = `
user root;
daemon off;
worker_processes 1;
pid ${dir}/nginx.pid;
error_log ${dir}/error.log warn;
events { worker_connections 512; }
http {
  access_log ${dir}/access.log;
  ${temp.join('\n  ')}
  proxy_cache_path ${dir}/cache levels=1:2 keys_zone=blobs:4m max_size=1g;
  server {
    listen 127.0.0.1:${port};
    keepalive_requests 100000;
    location ~ ^/v2/.+/blobs/ {
      slice 1m;
      proxy_cache blobs;
      proxy_cache_key $uri$slice_range;
      proxy_cache_valid 200 206 1h;
      proxy_set_header Range $slice_range;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_pass http://${upstream};
    }
    location / { proxy_pass http://${upstream}; }
  }
}
`;
  const url = `http://127.0.0.1:${port}`;
  return await startNginx(dir, config, async () => (await fetch(`${url}/v2/`)).ok, url);
}

async function startNginx(dir: string, config: string, isUp: () => Promise<boolean>, url: string): Promise<LabNginx> {
  await writeFile(join(dir, 'nginx.conf'), config);
  const args = ['-p', dir, '-c', join(dir, 'nginx.conf'), '-e', join(dir, 'error.log')];
  const daemon = startDaemon('nginx', args, { logPath: join(dir, 'nginx.log') });
  try {
    await waitFor('nginx', isUp);
  } catch (error) {
    await daemon.stop('SIGKILL');
    throw error;
  }
  return { url, stop: async () => void (await daemon.stop()) };
}

/**
 * nginx in front of one registry with TLS: its certificate is signed by `ca.crt`, and it wants one of clients that the
 * same authority signed, `client.crt` with `client.key`; all of them in `dir`.
 */
export async function startTlsMirror(dir: string, upstream: string): Promise<LabNginx> {
  await makeCertificates(dir);
  const port = await freePort();
  await mkdir(join(dir, 'temp'), { recursive: true });
  const config = `
user root;
daemon off;
worker_processes 1;
pid ${dir}/nginx.pid;
error_log ${dir}/error.log warn;
events { worker_connections 64; }
http {
  access_log off;
  ${TEMP.map((name) => `${name}_temp_path ${dir}/temp/${name};`).join('\n  ')}
  server {
    listen 127.0.0.1:${port} ssl;
    ssl_certificate ${dir}/server.crt;
    ssl_certificate_key ${dir}/server.key;
    ssl_client_certificate ${dir}/ca.crt;
    ssl_verify_client on;
    location / { rewrite ^(.*)$ $1? break; proxy_pass http://${upstream}; }
  }
}
`;
  return await startNginx(
    dir,
    config,
    async () => {
      const { status } = await run('openssl', ['s_client', '-connect', `127.0.0.1:${port}`], { allowFailure: true });
      return status === 0;
    },
    `https://127.0.0.1:${port}`,
  );
}

async function makeCertificates(dir: string): Promise<void> {
  const openssl = (...args: string[]) => run('openssl', args, { cwd: dir });
  await openssl(
    'req',
    '-x509',
    '-newkey',
    'rsa:2048',
    '-nodes',
    '-keyout',
    'ca.key',
    '-out',
    'ca.crt',
    '-subj',
    '/CN=lab',
    '-days',
    '2',
  );
  await writeFile(join(dir, 'names'), 'subjectAltName=IP:127.0.0.1');
  for (const name of ['server', 'client']) {
    await openssl(
      'req',
      '-newkey',
      'rsa:2048',
      '-nodes',
      '-keyout',
      `${name}.key`,
      '-out',
      `${name}.csr`,
      '-subj',
      `/CN=${name}`,
    );
    const sign = [
      'x509',
      '-req',
      '-in',
      `${name}.csr`,
      '-CA',
      'ca.crt',
      '-CAkey',
      'ca.key',
      '-CAcreateserial',
      '-days',
      '2',
    ];
    await openssl(...sign, '-out', `${name}.crt`, '-extfile', 'names');
  }
}
