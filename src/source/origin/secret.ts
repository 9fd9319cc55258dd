import { hash, timingSafeEqual } from 'node:crypto';
import { inspect } from 'node:util';

/** A string that shows itself only through `reveal`: printing, logging or serializing it yields `[secret]`. */
export class Secret {
  readonly #value: string;

  constructor(value: string) {
    this.#value = value;
  }

  reveal(): string {
    return this.#value;
  }

  /** Compares in constant time, whatever the lengths. */
  equals(other: Secret): boolean {
    return timingSafeEqual(hash('sha256', this.#value, 'buffer'), hash('sha256', other.#value, 'buffer'));
  }

  toString(): string {
    return '[secret]';
  }

  toJSON(): string {
    return '[secret]';
  }

  [inspect.custom](): string {
    return '[secret]';
  }
}
