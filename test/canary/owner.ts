import { CANARY } from './needles.ts';
import { recordCanary } from './records.ts';

/** Says that secrets of this test belong to the server at `host:port`: seen there, they are where they should be. */
export function ownsSecrets(host: string): void {
  recordCanary({ kind: 'owner', port: Number(host.slice(host.lastIndexOf(':') + 1)) });
}

/** Throws unless each secret is one that is known when it turns up where it does not belong. */
export function assertCanaries(...secrets: readonly (string | undefined)[]): void {
  for (const secret of secrets) {
    if (secret !== undefined && !secret.startsWith(CANARY)) throw new Error(`secrets of tests begin with ${CANARY}`);
  }
}
