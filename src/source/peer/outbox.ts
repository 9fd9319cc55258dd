import { KEY_BYTES } from './chunk-key.ts';
import { SWARM_LIMITS } from './limits.ts';

/** Collects keys by receiver and sends full batches, a few at a time each; who is slow holds up the sender. */
export interface Outbox {
  /** Resolves at once while the receiver keeps up. Keys at `at` of a packed array. */
  add(to: string, keys: Uint8Array, at: number): void | Promise<void>;
  /** Sends what is left and waits for every acknowledgement. */
  flush(): Promise<void>;
}

interface Box {
  keys: Uint8Array;
  used: number;
  readonly sending: Set<Promise<void>>;
}

/** `send` sends a batch and resolves when it is acknowledged; `onLost` gets the keys of one that was not. */
export function createOutbox(components: {
  send: (to: string, keys: Uint8Array) => Promise<void>;
  onLost: (to: string, keys: Uint8Array) => void;
}): Outbox {
  const boxes = new Map<string, Box>();

  function post(to: string, box: Box): void {
    const keys = box.keys.subarray(0, box.used * KEY_BYTES);
    box.keys = new Uint8Array(0);
    box.used = 0;
    const sent = components
      .send(to, keys)
      .catch(() => components.onLost(to, keys))
      .finally(() => box.sending.delete(sent));
    box.sending.add(sent);
  }

  async function room(box: Box): Promise<void> {
    while (box.sending.size >= SWARM_LIMITS.batchesInFlight) await Promise.race(box.sending);
  }

  return {
    add(to, keys, at) {
      let box = boxes.get(to);
      if (box === undefined) {
        box = { keys: new Uint8Array(0), used: 0, sending: new Set() };
        boxes.set(to, box);
      }
      if ((box.used + 1) * KEY_BYTES > box.keys.byteLength) {
        const larger = new Uint8Array(Math.min(SWARM_LIMITS.keysPerBatch, Math.max(16, 4 * box.used)) * KEY_BYTES);
        larger.set(box.keys.subarray(0, box.used * KEY_BYTES));
        box.keys = larger;
      }
      const { keys: into, used } = box;
      // One byte at a time: cheaper than the two views that `set` takes.
      for (let index = 0; index < KEY_BYTES; index += 1) into[used * KEY_BYTES + index] = keys[at + index] as number;
      box.used = used + 1;
      if (box.used < SWARM_LIMITS.keysPerBatch) return undefined;
      post(to, box);
      return room(box);
    },
    async flush() {
      for (const [to, box] of boxes) if (box.used > 0) post(to, box);
      await Promise.all([...boxes.values()].flatMap(({ sending }) => [...sending]));
      boxes.clear();
    },
  };
}
