import type { Clock } from '../../clock.ts';
import { ShoalError } from '../../errors.ts';
import type { RangedBlob } from '../../image/layer-reader.ts';
import type { Logger } from '../../log.ts';
import type { RegistryClient } from '../origin/registry-client.ts';
import type { MirrorChains } from './chains.ts';
import type { MirrorHost } from './mirror-host.ts';
import { throughMirrors } from './through-mirrors.ts';

interface Where {
  readonly registry: string;
  readonly repository: string;
}

/**
 * A registry client that asks the mirrors of a registry first, within what their capabilities allow, and the registry
 * itself when none of them helps. Manifests by digest and configs are verified by whoever answers; what a tag means a
 * mirror with `resolve` may decide, as with containerd.
 */
export function createMirroredRegistry(components: {
  origin: RegistryClient;
  chains: MirrorChains;
  clock: Clock;
  log: Logger;
}): RegistryClient {
  const { origin, chains } = components;

  async function ask<T>(
    { registry, repository }: Where,
    question: {
      need: 'pull' | 'resolve';
      subject: string;
      signal: AbortSignal;
      urgency?: 'demand' | 'prefetch' | undefined;
    },
    fromMirror: (host: MirrorHost, signal: AbortSignal) => Promise<T>,
    fromOrigin: () => Promise<T>,
  ): Promise<T> {
    const chain = await chains.of(registry);
    const outcome = await throughMirrors(components, chain, { repository, ...question }, fromMirror);
    if ('value' in outcome) return outcome.value;
    if (chain.origin[question.need]) return await fromOrigin();
    throw (
      outcome.error ??
      new ShoalError('SOURCE_FAILED', `no mirror of ${registry} can be used, and the registry itself must not be asked`)
    );
  }

  function rangedBlob(where: Where, blob: { digest: RangedBlob['digest']; size: number }): RangedBlob {
    const { digest, size } = blob;
    return {
      digest,
      size,
      read: (offset, length, options) =>
        ask(
          where,
          { need: 'pull', subject: digest, signal: options.signal, urgency: options.urgency },
          (host, signal) => host.ranged(where.repository, blob).read(offset, length, { ...options, signal }),
          async () => (await origin.blob(where, blob, options)).read(offset, length, options),
        ),
    };
  }

  return {
    resolve(reference, options) {
      const need = reference.digest === undefined ? 'resolve' : 'pull';
      const subject = reference.digest ?? reference.tag ?? 'latest';
      return ask(
        reference,
        { need, subject, ...options },
        (host, signal) => host.client('demand').resolve(reference, { signal }),
        () => origin.resolve(reference, options),
      );
    },
    manifest(reference, target, options) {
      const subject = target ?? reference.digest ?? reference.tag ?? 'latest';
      return ask(
        reference,
        { need: subject.includes(':') ? 'pull' : 'resolve', subject, ...options },
        (host, signal) => host.client('demand').manifest(reference, target, { signal }),
        () => origin.manifest(reference, target, options),
      );
    },
    async blob(where, descriptor, options) {
      const { digest } = descriptor;
      if (descriptor.size !== undefined) return rangedBlob(where, { digest, size: descriptor.size });
      const { size } = await ask(
        where,
        { need: 'pull', subject: digest, ...options },
        (host, signal) => host.client('demand').blob(where, { digest }, { signal }),
        () => origin.blob(where, { digest }, options),
      );
      return rangedBlob(where, { digest, size });
    },
    blobTail: (where, digest, maxBytes, options) =>
      ask(
        where,
        { need: 'pull', subject: digest, ...options },
        (host, signal) => host.client('demand').blobTail(where, digest, maxBytes, { signal }),
        () => origin.blobTail(where, digest, maxBytes, options),
      ),
    config: (where, descriptor, options) =>
      ask(
        where,
        { need: 'pull', subject: descriptor.digest, ...options },
        (host, signal) => host.client('demand').config(where, descriptor, { signal }),
        () => origin.config(where, descriptor, options),
      ),
    // What refers to an image decides what is believed of it: asked where it is pushed.
    referrers: (where, subject, options) => origin.referrers(where, subject, options),
    pullToken: (where) => origin.pullToken(where),
    renewed: (where) => origin.renewed(where),
    async close() {
      await chains.close();
      await origin.close();
    },
    [Symbol.asyncDispose]() {
      return this.close();
    },
  };
}
