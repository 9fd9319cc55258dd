import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Client, credentials, loadPackageDefinition } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { type CommandResult, type Daemon, inNetwork, run, startDaemon, waitFor } from './process.ts';

/** How a `ctr` command is run; the namespace is the CRI's unless another is named. */
export interface CtrOptions {
  readonly allowFailure?: boolean;
  /** Uses `ctr-remote`, which knows `rpull` and eStargz. */
  readonly remote?: boolean;
  readonly timeoutMs?: number;
  readonly namespace?: string;
}

/** A real containerd with its own root, state and socket. */
export interface LabContainerd {
  readonly socket: string;
  readonly snapshotter: string;
  readonly daemon: Daemon;
  /** Pulls through the CRI image service, as kubelet does. */
  criPull(image: string): Promise<void>;
  criRemove(image: string): Promise<void>;
  /** `ctr` (or ctr-remote) in the k8s.io namespace. */
  ctr(args: readonly string[], options?: CtrOptions): Promise<CommandResult>;
  /** Runs a container to its end with runc and gives its output. */
  runContainer(image: string, id: string, command: readonly string[], options?: CtrOptions): Promise<CommandResult>;
  stop(): Promise<void>;
}

const CRI_PROTO = fileURLToPath(new URL('./cri-image.proto', import.meta.url));

/** Starts containerd in `dir`; `proxy` names a snapshotter plugin socket, else overlayfs is used. */
export async function startContainerd(init: {
  dir: string;
  proxy?: { name: string; socket: string };
  registryHost: string;
  netns?: string;
}): Promise<LabContainerd> {
  const socket = join(init.dir, 'c.sock');
  const snapshotter = init.proxy?.name ?? 'overlayfs';
  const certs = join(init.dir, 'certs.d', init.registryHost);
  await mkdir(certs, { recursive: true });
  await writeFile(
    join(certs, 'hosts.toml'),
    `server = "http://${init.registryHost}"\n[host."http://${init.registryHost}"]\n`,
  );
  await writeFile(join(init.dir, 'config.toml'), containerdConfig(init, socket, snapshotter));
  const [command, ...args] = inNetwork(init.netns, ['containerd', '--config', join(init.dir, 'config.toml')]);
  const daemon = startDaemon(command, args, { logPath: join(init.dir, 'containerd.log') });
  const ctr: LabContainerd['ctr'] = (rest, options = {}) =>
    run(
      options.remote === true ? 'ctr-remote' : 'ctr',
      ['-a', socket, '-n', options.namespace ?? 'k8s.io', ...rest],
      options,
    );
  await waitFor('containerd', async () => (await ctr(['version'])).status === 0);
  const images = criImages(socket);
  await waitFor('the CRI plugin', async () => (await criCall(images, 'ListImages', {})) !== undefined);
  return {
    socket,
    snapshotter,
    daemon,
    ctr,
    criPull: async (image) => void (await criCall(images, 'PullImage', { image: { image } })),
    criRemove: async (image) => void (await criCall(images, 'RemoveImage', { image: { image } })),
    runContainer: (image, id, command, options) =>
      ctr(['run', '--rm', '--snapshotter', snapshotter, image, id, ...command], {
        timeoutMs: 120_000,
        allowFailure: true,
        ...options,
      }),
    async stop() {
      images.close();
      await daemon.stop();
    },
  };
}

function containerdConfig(
  init: { dir: string; proxy?: { name: string; socket: string } },
  socket: string,
  snapshotter: string,
): string {
  const proxy =
    init.proxy === undefined
      ? ''
      : `[proxy_plugins.${init.proxy.name}]\n  type = "snapshot"\n  address = "${init.proxy.socket}"\n`;
  return `version = 2
root = "${init.dir}/root"
state = "${init.dir}/state"
[grpc]
  address = "${socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "${init.dir}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  disable_apparmor = true
  restrict_oom_score_adj = true
  disable_tcp_service = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "${init.dir}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "${snapshotter}"
    disable_snapshot_annotations = false
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "${init.dir}/certs.d"
${proxy}`;
}

/** A client of the CRI image service. */
export type CriClient = Client &
  Record<string, (request: unknown, options: unknown, done: (error: Error | null, value: unknown) => void) => void>;

/** Connects to an image service: containerd's, or one in front of it. */
export function criImages(socket: string): CriClient {
  const definition = loadPackageDefinition(loadSync(CRI_PROTO, { keepCase: true }));
  const runtime = definition.runtime as unknown as { v1: { ImageService: new (...args: unknown[]) => CriClient } };
  return new runtime.v1.ImageService(`unix://${socket}`, credentials.createInsecure(), {
    'grpc.default_authority': 'localhost',
  });
}

/** One call of it. */
export function criCall(client: CriClient, method: string, request: unknown): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const call = client[method];
    if (call === undefined) throw new Error(`no CRI method ${method}`);
    call.call(client, request, { deadline: Date.now() + 300_000 }, (error: Error | null, value: unknown) => {
      if (error === null) resolve(value);
      else reject(error);
    });
  });
}
