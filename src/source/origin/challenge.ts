import { ShoalError } from '../../errors.ts';
import { TOKEN_LIMITS } from './limits.ts';

/** One challenge of a WWW-Authenticate header (RFC 9110, 11.6.1): scheme and parameter names in lower case. */
export interface Challenge {
  readonly scheme: string;
  readonly parameters: ReadonlyMap<string, string>;
}

const TOKEN = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
const TOKEN68 = /[A-Za-z0-9\-._~+/]+=*(?=[ \t]*(?:,|$))/y;
const QUOTED = /"((?:[^"\\]|\\.)*)"/sy;
const SPACE = /[ \t]*/y;
const COMMAS = /[ \t,]*/y;
const EQUALS = /[ \t]*=[ \t]*/y;

/** Parses a WWW-Authenticate header; throws AUTH_REFUSED naming `host` when it is malformed or beyond the limits. */
export function parseChallenges(header: string, host: string): Challenge[] {
  if (header.length > TOKEN_LIMITS.maxChallengeLength) throw refuse(host, 'is too long');
  const scanner = new Scanner(header);
  const challenges: Challenge[] = [];
  scanner.take(COMMAS);
  while (!scanner.done) {
    const scheme = scanner.take(TOKEN);
    if (scheme === undefined) throw refuse(host, 'is malformed');
    if (challenges.length === TOKEN_LIMITS.maxChallenges) throw refuse(host, 'has too many challenges');
    scanner.take(SPACE);
    challenges.push({ scheme: scheme.toLowerCase(), parameters: parseParameters(scanner, host) });
    scanner.take(COMMAS);
    if (!scanner.done && !scanner.afterComma) throw refuse(host, 'is malformed');
  }
  return challenges;
}

/** Parameters up to the next challenge; a name without `=` starts that one. */
function parseParameters(scanner: Scanner, host: string): ReadonlyMap<string, string> {
  const parameters = new Map<string, string>();
  for (;;) {
    const start = scanner.at;
    const name = scanner.take(TOKEN)?.toLowerCase();
    if (name === undefined || scanner.take(EQUALS) === undefined) {
      scanner.at = start;
      if (parameters.size === 0) scanner.take(TOKEN68);
      return parameters;
    }
    const quoted = scanner.take(QUOTED);
    const value = quoted === undefined ? scanner.take(TOKEN) : quoted.slice(1, -1).replace(/\\(.)/gs, '$1');
    if (value === undefined) {
      // `Basic abc=`: not a parameter but a token68.
      scanner.at = start;
      if (parameters.size === 0 && scanner.take(TOKEN68) !== undefined) return parameters;
      throw refuse(host, 'is malformed');
    }
    if (parameters.has(name)) throw refuse(host, `names ${JSON.stringify(name.slice(0, 40))} twice`);
    if (parameters.size === TOKEN_LIMITS.maxParameters) throw refuse(host, 'has too many parameters');
    parameters.set(name, value);
    const afterValue = scanner.at;
    if (!(scanner.take(COMMAS) ?? '').includes(',')) {
      scanner.at = afterValue;
      return parameters;
    }
  }
}

class Scanner {
  readonly #text: string;
  at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  get done(): boolean {
    return this.at >= this.#text.length;
  }

  /** True when only white space lies between here and the comma before. */
  get afterComma(): boolean {
    return /,[ \t]*$/.test(this.#text.slice(0, this.at));
  }

  /** What the sticky pattern matches here, consumed; undefined when it doesn't. */
  take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.at;
    const match = pattern.exec(this.#text);
    if (match === null) return undefined;
    this.at += match[0].length;
    return match[0];
  }
}

function refuse(host: string, why: string): ShoalError {
  return new ShoalError('AUTH_REFUSED', `the WWW-Authenticate header of ${host} ${why}`);
}
