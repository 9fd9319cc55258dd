import { SESSION_LIMITS } from '../../../src/core/policy/neighbour-limits.ts';
import { appended } from '../../engine/lists.ts';
import type { ShoalNode, Urgency, Wanted } from './node.ts';

/** Names neighbours that should have one chunk, after the daemon's holder search: bitmaps first, then the directory. */
export class HolderSearch {
  tried: ShoalNode[] = [];
  isUnderWay = false;
  readonly #node: ShoalNode;
  readonly #wanted: Wanted;
  readonly #urgency: Urgency;
  #hasLooked = false;

  constructor(node: ShoalNode, wanted: Wanted, urgency: Urgency) {
    this.#node = node;
    this.#wanted = wanted;
    this.#urgency = urgency;
  }

  /** The next to ask, each once; undefined when nobody else is known. */
  next(found: (holder: ShoalNode | undefined) => void): void {
    const { layer, chunk } = this.#wanted;
    const session = this.#node.session(layer.blob);
    const answer = (holder: ShoalNode | undefined): void => {
      this.isUnderWay = false;
      if (holder !== undefined) this.tried = appended(this.tried, holder);
      found(holder);
    };
    this.isUnderWay = true;
    const known = this.#byBitmap();
    if (known !== undefined) {
      answer(known);
      return;
    }
    const askAround = (): void => {
      session.refresh();
      this.#byDirectory(answer);
    };
    if (!session.isUnsettled(chunk.row)) {
      askAround();
      return;
    }
    session.settled(chunk.row, () => {
      const settled = this.#byBitmap();
      if (settled !== undefined) answer(settled);
      else askAround();
    });
  }

  #byBitmap(): ShoalNode | undefined {
    const { chunk, layer } = this.#wanted;
    const holders = this.#node.session(layer.blob).holders(chunk.row, this.tried);
    if (holders.length === 0) return undefined;
    return this.#node.scores.choose(holders, chunk.bytes, this.#node.swarm.clock.nowMs());
  }

  #byDirectory(answer: (holder: ShoalNode | undefined) => void): void {
    const { swarm, nobody, scores } = this.#node;
    const { content } = this.#wanted.chunk;
    const session = this.#node.session(this.#wanted.layer.blob);
    const { nowMs } = swarm.clock;
    if (this.#hasLooked || nobody.has(content, nowMs()) || !session.worthFinding()) {
      answer(undefined);
      return;
    }
    this.#hasLooked = true;
    const { findDemandMs, findPrefetchMs } = SESSION_LIMITS;
    swarm.find(this.#node, content, this.#urgency === 'prefetch' ? findPrefetchMs : findDemandMs, (holders) => {
      session.foundAny(holders.length > 0);
      if (holders.length === 0) nobody.add(content, nowMs());
      // Answers of several keepers come in no order: the first of them is asked.
      const start = swarm.random.below(Math.max(1, holders.length));
      for (let step = 0; step < holders.length; step += 1) {
        const holder = holders[(start + step) % holders.length] as ShoalNode;
        session.add(holder);
        if (!this.tried.includes(holder) && scores.usable(holder.id, nowMs())) {
          answer(holder);
          return;
        }
      }
      answer(undefined);
    });
  }
}
