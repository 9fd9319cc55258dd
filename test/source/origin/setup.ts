import { randomFillSync } from 'node:crypto';
import { type Clock, systemClock } from '../../../src/clock.ts';
import { parseReference, type Reference } from '../../../src/image/reference.ts';
import { type Logger, silentLogger } from '../../../src/log.ts';
import { createStaticCredentials, type StaticCredentials } from '../../../src/source/origin/config-credentials.ts';
import { type CredentialSource, chainCredentials } from '../../../src/source/origin/credentials.ts';
import {
  createRegistryClient,
  type RegistryClient,
  type RegistryClientInit,
} from '../../../src/source/origin/registry-client.ts';
import { createUrlPolicy, type UrlPolicyInit } from '../../../src/source/url-policy.ts';

/** A client for a test: short back-off, everything else as in production unless said otherwise. */
export function testClient(
  options: {
    policy?: UrlPolicyInit;
    credentials?: StaticCredentials;
    sources?: readonly CredentialSource[];
    log?: Logger;
    clock?: Clock;
    init?: RegistryClientInit;
  } = {},
): RegistryClient {
  return createRegistryClient(
    {
      policy: createUrlPolicy(options.policy),
      credentials: chainCredentials(options.sources ?? [createStaticCredentials(options.credentials ?? {})]),
      log: options.log ?? silentLogger,
      clock: options.clock ?? systemClock,
      random: () => 0.5,
    },
    { retryBaseMs: 2, ...options.init },
  );
}

/** The machine's clock, which can be moved forward. */
export function movableClock(): Clock & { ahead(ms: number): void } {
  let aheadMs = 0;
  return {
    ...systemClock,
    nowMs: () => systemClock.nowMs() + aheadMs,
    ahead: (ms) => {
      aheadMs += ms;
    },
  };
}

/** A signal that ends a hanging test. */
export function soon(ms = 10_000): AbortSignal {
  return AbortSignal.timeout(ms);
}

/** `host/team/app:1`. */
export function imageAt(host: string): Reference {
  return parseReference(`${host}/team/app:1`);
}

export function randomBytes(length: number): Uint8Array {
  return randomFillSync(new Uint8Array(length));
}
