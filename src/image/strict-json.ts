import { ShoalError } from '../errors.ts';

/** Bounds of a JSON document: they keep a hostile one from costing more memory than its own bytes. */
export interface JsonLimits {
  readonly maxDepth: number;
  /** Commas, colons and brackets together: what the parsed objects cost. */
  readonly maxTokens: number;
}

/** A JSON object whose members are not known yet. */
export type JsonObject = { readonly [key: string]: unknown };

// One match per string or structural character; numbers, literals and white space between are skipped over. A string
// that never ends matches to the end of the text: looking for its end again from each quote in it would take minutes.
const TOKEN = /"(?:[^"\\]|\\.)*"?|[[\]{},:]/gs;

/**
 * Parses UTF-8 JSON that was written by someone else: bounded depth and token count, and no object may name a member
 * twice, because readers disagree on which one counts. Throws INVALID_MANIFEST naming `what`. Bound the size before.
 */
export function parseStrictJson(bytes: Uint8Array, what: string, limits: JsonLimits): unknown {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new ShoalError('INVALID_MANIFEST', `${what} is not UTF-8`, { cause });
  }
  checkShape(text, what, limits);
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new ShoalError('INVALID_MANIFEST', `${what} is not JSON`, { cause });
  }
}

/** `value` as an object; throws INVALID_MANIFEST naming `what` for anything else. */
export function asObject(value: unknown, what: string): JsonObject {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as JsonObject;
  throw new ShoalError('INVALID_MANIFEST', `${what} is not an object`);
}

/** Runs before JSON.parse, so the text may be anything; on valid JSON it sees exactly the structure. */
function checkShape(text: string, what: string, limits: JsonLimits): void {
  const stack: (Set<string> | undefined)[] = [];
  let tokens = 0;
  let lastString: string | undefined;
  TOKEN.lastIndex = 0;
  for (let match = TOKEN.exec(text); match !== null; match = TOKEN.exec(text)) {
    const token = match[0];
    if (token.length > 1) {
      lastString = token;
      continue;
    }
    tokens += 1;
    if (tokens > limits.maxTokens) {
      throw new ShoalError('INVALID_MANIFEST', `${what} has more than ${limits.maxTokens} JSON tokens`);
    }
    if (token === '{' || token === '[') {
      stack.push(token === '{' ? new Set() : undefined);
      if (stack.length > limits.maxDepth) {
        throw new ShoalError('INVALID_MANIFEST', `${what} is nested deeper than ${limits.maxDepth} levels`);
      }
    } else if (token === '}' || token === ']') {
      stack.pop();
    } else if (token === ':' && lastString !== undefined) {
      addKey(stack.at(-1), lastString, what);
    }
  }
}

function addKey(keys: Set<string> | undefined, literal: string, what: string): void {
  if (keys === undefined) return;
  const key = literal.includes('\\') ? unescapeKey(literal, what) : literal.slice(1, -1);
  if (keys.has(key)) {
    throw new ShoalError('INVALID_MANIFEST', `${what} has the member ${JSON.stringify(key.slice(0, 80))} twice`);
  }
  keys.add(key);
}

function unescapeKey(literal: string, what: string): string {
  try {
    return JSON.parse(literal) as string;
  } catch (cause) {
    throw new ShoalError('INVALID_MANIFEST', `${what} is not JSON`, { cause });
  }
}
