import type { ShoalNode } from './node.ts';

/** What a claimer is told, with hosts in place of names. */
export type ClaimReply =
  | { readonly kind: 'granted' }
  | { readonly kind: 'ask'; readonly holders: readonly ShoalNode[] };

/** Whoever made a claim. */
export interface Claimer {
  replied(reply: ClaimReply): void;
}

/** Chunks of one blob that are claimed at the same coordinator. */
export interface Region {
  readonly blob: number;
  readonly region: number;
}
