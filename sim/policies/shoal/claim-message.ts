import type { ClaimLedger, LedgerAnswer } from '../../../src/core/policy/claim-ledger.ts';
import { claimShare } from '../../../src/core/policy/claim-limits.ts';
import { Alarm } from '../../engine/timeline.ts';
import type { Claimer, ClaimReply } from './claim-reply.ts';
import type { ShoalNode } from './node.ts';

/** The answer to a claim of what nobody else is known to have. */
export const GRANTED: ClaimReply = { kind: 'granted' };

/** What a message about claims needs of the swarm. */
export interface Coordinators {
  ledgerOf(node: ShoalNode): ClaimLedger<number>;
  runningNode(id: number): ShoalNode | undefined;
  /** Chunks that the content stands for. */
  chunksOf(content: number): number;
}

interface Message {
  readonly own: ShoalNode;
  readonly coordinator: ShoalNode;
  readonly contents: readonly number[];
}

/** A claim on its way to its coordinator, and its answer on its way back. */
export class ClaimMessage extends Alarm {
  readonly #coordinators: Coordinators;
  readonly #message: Message;
  /** Of each content. */
  readonly #claimers: readonly Claimer[];
  readonly #ownLife: number;
  readonly #life: number;
  #replies: readonly ClaimReply[] | undefined;

  constructor(coordinators: Coordinators, message: Message, claimers: readonly Claimer[]) {
    super();
    this.#coordinators = coordinators;
    this.#message = message;
    this.#claimers = claimers;
    this.#ownLife = message.own.host.life;
    this.#life = message.coordinator.host.life;
  }

  ring(): void {
    if (this.#replies === undefined) this.#arrived();
    else this.#returned(this.#replies);
  }

  /** At the coordinator, without a message when that is the claimer itself. */
  decide(): void {
    const { own, coordinator, contents } = this.#message;
    const ledger = this.#coordinators.ledgerOf(coordinator);
    const keys = contents.reduce((sum, content) => sum + this.#coordinators.chunksOf(content), 0);
    this.#replies = contents.map((content) => {
      const share = claimShare(keys) * this.#coordinators.chunksOf(content);
      return this.#replyOf(ledger.claim(own.id, content, share));
    });
    this.#goBack();
  }

  #arrived(): void {
    const { own, coordinator, contents } = this.#message;
    const { host } = coordinator;
    if (coordinator === own) this.decide();
    else if (host.isUp && host.life === this.#life) {
      host.messagesIn += 1;
      this.decide();
    } else {
      // The next closest is asked after a while; it knows nothing, so it grants.
      this.#replies = contents.map(() => GRANTED);
      this.#goBack();
    }
  }

  #goBack(): void {
    const { own, coordinator } = this.#message;
    const { world } = own.swarm;
    world.timeline.set(this, coordinator === own ? 0 : world.latencyMs(coordinator.host, own.host));
  }

  #returned(replies: readonly ClaimReply[]): void {
    const { host } = this.#message.own;
    if (!host.isUp || host.life !== this.#ownLife) return;
    for (let at = 0; at < replies.length; at += 1) (this.#claimers[at] as Claimer).replied(replies[at] as ClaimReply);
  }

  #replyOf(answer: LedgerAnswer<number>): ClaimReply {
    if (answer.kind === 'granted') return GRANTED;
    const holders: ShoalNode[] = [];
    for (const id of answer.holders) {
      const node = this.#coordinators.runningNode(id);
      if (node !== undefined) holders.push(node);
    }
    return holders.length > 0 ? { kind: 'ask', holders } : GRANTED;
  }
}

/** Word of how claims ended, on its way to their coordinator. */
export class SettleMessage extends Alarm {
  readonly #coordinators: Coordinators;
  readonly #message: Message;
  readonly #outcome: 'held' | 'failed';
  readonly #life: number;

  constructor(coordinators: Coordinators, message: Message, outcome: 'held' | 'failed') {
    super();
    this.#coordinators = coordinators;
    this.#message = message;
    this.#outcome = outcome;
    this.#life = message.coordinator.host.life;
  }

  ring(): void {
    const { host } = this.#message.coordinator;
    if (!host.isUp || host.life !== this.#life) return;
    host.messagesIn += 1;
    this.settle();
  }

  settle(): void {
    const { own, coordinator, contents } = this.#message;
    const ledger = this.#coordinators.ledgerOf(coordinator);
    for (const content of contents) ledger.settle(own.id, content, this.#outcome);
  }
}
