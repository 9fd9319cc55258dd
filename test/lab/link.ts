import { run } from './process.ts';

/** A host of its own behind one link: a network namespace, a veth pair, and a rate limit on what it sends. */
export interface LabLink {
  readonly netns: string;
  /** Address of the host in the namespace, and of this side. */
  readonly remoteAddress: string;
  readonly localAddress: string;
  close(): Promise<void>;
}

/** Makes a namespace, reachable at 10.210.<id>.2; `rate` as tc writes it (`100mbit`), unlimited when absent. */
export async function createLink(id: number, rate?: string, netns = `shoal-${id}`): Promise<LabLink> {
  const [near, far] = [`shl${id}a`, `shl${id}b`];
  const localAddress = `10.210.${id}.1`;
  const remoteAddress = `10.210.${id}.2`;
  await run('ip', ['netns', 'delete', netns], { allowFailure: true });
  await run('ip', ['link', 'delete', near], { allowFailure: true });
  await run('ip', ['netns', 'add', netns]);
  await run('ip', ['link', 'add', near, 'type', 'veth', 'peer', 'name', far, 'netns', netns]);
  await run('ip', ['addr', 'add', `${localAddress}/24`, 'dev', near]);
  await run('ip', ['link', 'set', near, 'up']);
  await run('ip', ['-n', netns, 'addr', 'add', `${remoteAddress}/24`, 'dev', far]);
  await run('ip', ['-n', netns, 'link', 'set', far, 'up']);
  await run('ip', ['-n', netns, 'link', 'set', 'lo', 'up']);
  if (rate !== undefined) {
    const limit = ['dev', far, 'root', 'tbf', 'rate', rate, 'burst', '256kb', 'latency', '50ms'];
    await run('ip', ['netns', 'exec', netns, 'tc', 'qdisc', 'replace', ...limit]);
  }
  return {
    netns,
    remoteAddress,
    localAddress,
    close: async () => void (await run('ip', ['netns', 'delete', netns], { allowFailure: true })),
  };
}
