import type { Digest } from '../../../core/digest.ts';
import { CLAIM_WAIT_LIMITS } from '../../../core/policy/claim-wait-limits.ts';
import { ShoalError } from '../../../errors.ts';
import type { ClaimAnswer, ClaimRequest, PeerDirectory } from '../directory.ts';

/** A chunk that is claimed on behalf of its extent. */
export interface Claimed {
  readonly blob: Digest;
  readonly region: number;
  readonly digest: Digest;
}

/** Sends claims and their ends in few messages: one per region of a blob and moment. */
export interface ClaimBatches {
  /** Never rejects: without an answer in time the claim counts as granted. */
  claim(what: Claimed): Promise<ClaimAnswer>;
  settle(what: Claimed, outcome: 'held' | 'failed'): void;
  /** Sends what gathers, and answers nothing any more. */
  close(): void;
}

interface Asking {
  readonly blob: Digest;
  readonly region: number;
  readonly claims: { digest: Digest; resolve: (answer: ClaimAnswer) => void }[];
}

/** What a claim nobody answered is taken for. */
const UNANSWERED: ClaimAnswer = { kind: 'granted', leaseMs: Number.POSITIVE_INFINITY };

/** Batches over a directory. */
export function createClaimBatches({ directory }: { directory: PeerDirectory }): ClaimBatches {
  const asking = new Map<string, Asking>();
  const settling = new Map<string, { request: ClaimRequest & { digests: Digest[] }; outcome: 'held' | 'failed' }>();
  const closed = new AbortController();

  async function send({ blob, region, claims }: Asking): Promise<void> {
    const digests = claims.map(({ digest }) => digest);
    let answers: readonly ClaimAnswer[] = [];
    try {
      const signal = AbortSignal.any([closed.signal, AbortSignal.timeout(CLAIM_WAIT_LIMITS.answerMs)]);
      answers = await directory.claim({ blob, region, digests }, { signal });
    } catch {
      // Too slow, or closing.
    }
    for (const [index, { resolve }] of claims.entries()) resolve(answers[index] ?? UNANSWERED);
  }

  return {
    claim({ blob, region, digest }) {
      if (closed.signal.aborted) return Promise.reject(new ShoalError('UNAVAILABLE', 'the swarm is closed'));
      return new Promise((resolve) => {
        const key = `${region}/${blob}`;
        const batch = asking.get(key) ?? { blob, region, claims: [] };
        batch.claims.push({ digest, resolve });
        const flush = (): void => {
          if (asking.get(key) === batch) asking.delete(key);
          void send(batch);
        };
        if (batch.claims.length === 1) {
          asking.set(key, batch);
          setTimeout(() => asking.get(key) === batch && flush(), CLAIM_WAIT_LIMITS.gatherMs);
        }
        if (batch.claims.length >= CLAIM_WAIT_LIMITS.maxBatch) flush();
      });
    },
    settle({ blob, region, digest }, outcome) {
      const key = `${outcome}/${region}/${blob}`;
      const batch = settling.get(key) ?? { request: { blob, region, digests: [] as Digest[] }, outcome };
      batch.request.digests.push(digest);
      const flush = (): void => {
        if (settling.get(key) === batch) settling.delete(key);
        directory.settle(batch.request, outcome);
      };
      if (batch.request.digests.length === 1) {
        settling.set(key, batch);
        setTimeout(() => settling.get(key) === batch && flush(), CLAIM_WAIT_LIMITS.gatherMs);
      }
      if (batch.request.digests.length >= CLAIM_WAIT_LIMITS.maxBatch) flush();
    },
    close() {
      closed.abort();
      for (const { request, outcome } of settling.values()) directory.settle(request, outcome);
      settling.clear();
    },
  };
}
