import type { ReadPlan } from './image.ts';

/**
 * Does the reads of one start: each when the reads it depends on are answered and the container has worked for a while.
 * `think` lets the container work; `read` gets a chunk's position in the image; `done` is called after the last answer. Answers what ends it early.
 */
export function runReads(
  plan: ReadPlan,
  init: {
    think: (ms: number, done: () => void) => void;
    read: (chunk: number, answered: () => void) => void;
    done: () => void;
  },
): () => void {
  const count = plan.chunk.length;
  let next = 0;
  let answered = 0;
  let isOver = false;
  const onAnswer = (): void => {
    answered += 1;
    if (isOver) return;
    if (answered === count) {
      isOver = true;
      init.done();
    } else begin();
  };
  const issue = (at: number): void => {
    if (!isOver) init.read(plan.chunk[at] as number, onAnswer);
  };
  const begin = (): void => {
    while (next < count && (plan.after[next] as number) <= answered) {
      const at = next;
      next += 1;
      const thinkMs = plan.thinkMs[at] as number;
      if (thinkMs > 0) init.think(thinkMs, () => issue(at));
      else issue(at);
    }
  };
  if (count === 0) init.done();
  else begin();
  return () => {
    isOver = true;
  };
}
