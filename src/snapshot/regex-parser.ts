import { ShoalError } from '../errors.ts';

/** Tests one character (a code point as a string). */
export type CharacterTest = (character: string) => boolean;

/** Places that match no character. */
export type Anchor = 'text-start' | 'text-end' | 'line-start' | 'line-end' | 'word' | 'not-word';

/** A parsed pattern. */
export type RegexNode =
  | { readonly kind: 'empty' }
  | { readonly kind: 'character'; readonly test: CharacterTest }
  | { readonly kind: 'anchor'; readonly anchor: Anchor }
  | { readonly kind: 'sequence' | 'either'; readonly parts: readonly RegexNode[] }
  | { readonly kind: 'repeat'; readonly part: RegexNode; readonly min: number; readonly max: number };

/** Go refuses larger counts, and deeper groups. */
const MAX_REPEAT = 1000;
const MAX_DEPTH = 100;

const ESCAPED: Readonly<Record<string, string>> = { a: '\x07', f: '\f', t: '\t', n: '\n', r: '\r', v: '\v' };
const POSIX: Readonly<Record<string, string>> = {
  alnum: '0-9A-Za-z',
  alpha: 'A-Za-z',
  ascii: '\\x00-\\x7f',
  blank: '\\t ',
  cntrl: '\\x00-\\x1f\\x7f',
  digit: '0-9',
  graph: '!-~',
  lower: 'a-z',
  print: ' -~',
  punct: '!-\\/:-@\\[-`\\{-~',
  space: '\\t\\n\\v\\f\\r ',
  upper: 'A-Z',
  word: '0-9A-Za-z_',
  xdigit: '0-9A-Fa-f',
};
/** Perl classes as RE2 has them: ASCII only. */
const PERL: Readonly<Record<string, string>> = { d: '0-9', s: '\\t\\n\\f\\r ', w: '0-9A-Za-z_' };

interface Flags {
  readonly i: boolean;
  readonly m: boolean;
  readonly s: boolean;
}

/** Parses Go's regular expression syntax (regexp/syntax, RE2). Throws INVALID_ARGUMENT saying what is wrong. */
export function parseRegexSyntax(pattern: string): RegexNode {
  const parser = new RegexParser(pattern);
  return parser.parse();
}

class RegexParser {
  readonly #text: string;
  #at = 0;
  #depth = 0;
  #flags: Flags = { i: false, m: false, s: false };

  constructor(text: string) {
    this.#text = text;
  }

  parse(): RegexNode {
    const node = this.#either();
    if (this.#at < this.#text.length) throw bad('unexpected )');
    return node;
  }

  #either(): RegexNode {
    const outer = this.#flags;
    const parts = [this.#sequence()];
    while (this.#take('|')) parts.push(this.#sequence());
    this.#flags = outer;
    return parts.length === 1 ? (parts[0] as RegexNode) : { kind: 'either', parts };
  }

  #sequence(): RegexNode {
    const parts: RegexNode[] = [];
    while (this.#at < this.#text.length && this.#text[this.#at] !== '|' && this.#text[this.#at] !== ')') {
      if (this.#take('\\Q')) parts.push(...this.#literalRun());
      else parts.push(this.#repeated());
    }
    return { kind: 'sequence', parts };
  }

  #repeated(): RegexNode {
    const part = this.#atom();
    const count = this.#repeatCount();
    if (count === undefined) return part;
    if (part.kind === 'empty') throw bad('nothing to repeat');
    this.#take('?');
    if (/^[*+?]/.test(this.#text.slice(this.#at, this.#at + 1))) throw bad('a repeat operator follows another');
    return { kind: 'repeat', part, ...count };
  }

  #repeatCount(): { min: number; max: number } | undefined {
    if (this.#take('*')) return { min: 0, max: Infinity };
    if (this.#take('+')) return { min: 1, max: Infinity };
    if (this.#take('?')) return { min: 0, max: 1 };
    const match = this.#match(/\{(\d+)(?:(,)(\d*))?\}/y);
    if (match === undefined) return undefined;
    const min = Number(match[1]);
    const max = match[2] === undefined ? min : match[3] === '' ? Infinity : Number(match[3]);
    if (min > MAX_REPEAT || (max > MAX_REPEAT && max !== Infinity) || min > max) throw bad('bad repeat count');
    return { min, max };
  }

  #atom(): RegexNode {
    if (this.#take('(')) return this.#group();
    if (this.#take('[')) return this.#character(this.#bracket());
    if (this.#take('.')) {
      const all = this.#flags.s;
      return { kind: 'character', test: (character) => all || character !== '\n' };
    }
    if (this.#take('^')) return { kind: 'anchor', anchor: this.#flags.m ? 'line-start' : 'text-start' };
    if (this.#take('$')) return { kind: 'anchor', anchor: this.#flags.m ? 'line-end' : 'text-end' };
    if (/^[*+?]/.test(this.#text.slice(this.#at))) throw bad('nothing to repeat');
    if (this.#take('\\')) return this.#escape();
    return this.#character(literal(this.#next()));
  }

  #group(): RegexNode {
    const outer = this.#flags;
    const named = this.#match(/\?P?<[A-Za-z0-9_]+>/y);
    const flags = named === undefined ? this.#match(/\?([imsU]*)(?:-([imsU]+))?([:)])/y) : undefined;
    if (named === undefined && flags === undefined && this.#text[this.#at] === '?') throw bad('unknown group');
    if (flags !== undefined) {
      const now = { ...this.#flags };
      for (const flag of flags[1] ?? '') if (flag in now) now[flag as keyof Flags] = true;
      for (const flag of flags[2] ?? '') if (flag in now) now[flag as keyof Flags] = false;
      this.#flags = now;
      if (flags[3] === ')') return { kind: 'empty' };
    }
    this.#depth += 1;
    if (this.#depth > MAX_DEPTH) throw bad('groups are nested too deep');
    const node = this.#either();
    this.#depth -= 1;
    if (!this.#take(')')) throw bad('missing )');
    this.#flags = outer;
    return node.kind === 'empty' ? { kind: 'sequence', parts: [] } : node;
  }

  #escape(): RegexNode {
    if (this.#take('A')) return { kind: 'anchor', anchor: 'text-start' };
    if (this.#take('z')) return { kind: 'anchor', anchor: 'text-end' };
    if (this.#take('b')) return { kind: 'anchor', anchor: 'word' };
    if (this.#take('B')) return { kind: 'anchor', anchor: 'not-word' };
    return this.#character(this.#classEscape());
  }

  /** The escape after a backslash as the inside of a JS character class. */
  #classEscape(): string {
    const property = this.#match(/([pP])(?:\{(\^?)([A-Za-z_]+)\}|([A-Z]))/y);
    if (property !== undefined) return propertyClass(property);
    const hex = this.#match(/x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]{1,8})\})/y);
    if (hex !== undefined) return codePoint(Number.parseInt(hex[1] ?? hex[2] ?? '', 16));
    const octal = this.#match(/0[0-7]{0,2}|[1-7][0-7]{2}|[1-7][0-7]/y);
    if (octal !== undefined) return codePoint(Number.parseInt(octal[0], 8));
    const character = this.#next();
    const perl = Object.hasOwn(PERL, character.toLowerCase()) ? PERL[character.toLowerCase()] : undefined;
    if (perl !== undefined) return character === character.toLowerCase() ? perl : negated(perl);
    if (Object.hasOwn(ESCAPED, character)) return literal(ESCAPED[character] as string);
    if (/^[A-Za-z0-9]$/.test(character)) throw bad(`unknown escape \\${character}`);
    return literal(character);
  }

  /** The inside of `[…]` as the inside of a JS character class (v flag), which may nest. */
  #bracket(): string {
    const negate = this.#take('^');
    const items: string[] = [];
    while (items.length === 0 || this.#text[this.#at] !== ']') {
      const posix = this.#match(/\[:(\^?)([a-z]+):\]/y);
      if (posix !== undefined) {
        const name = posix[2] as string;
        if (!Object.hasOwn(POSIX, name)) throw bad(`unknown class [:${name}:]`);
        items.push(posix[1] === '^' ? negated(POSIX[name] as string) : (POSIX[name] as string));
        continue;
      }
      const from = this.#bracketItem();
      const range = this.#match(/-(?!\])/y);
      items.push(range === undefined ? from : rangeOf(from, this.#bracketItem()));
    }
    this.#at += 1;
    return negate ? negated(items.join('')) : items.join('');
  }

  #bracketItem(): string {
    return this.#take('\\') ? this.#classEscape() : literal(this.#next());
  }

  #literalRun(): RegexNode[] {
    const end = this.#text.indexOf('\\E', this.#at);
    const run = this.#text.slice(this.#at, end === -1 ? undefined : end);
    this.#at += run.length + (end === -1 ? 0 : 2);
    return Array.from(run, (character) => this.#character(literal(character)));
  }

  #character(inside: string): RegexNode {
    const expression = compiled(`^[${inside}]$`, this.#flags.i ? 'vi' : 'v');
    return { kind: 'character', test: (character) => expression.test(character) };
  }

  #take(text: string): boolean {
    if (!this.#text.startsWith(text, this.#at)) return false;
    this.#at += text.length;
    return true;
  }

  #match(expression: RegExp): RegExpExecArray | undefined {
    expression.lastIndex = this.#at;
    const match = expression.exec(this.#text);
    if (match === null) return undefined;
    this.#at += match[0].length;
    return match;
  }

  #next(): string {
    const point = this.#text.codePointAt(this.#at);
    if (point === undefined) throw bad('it ends too early');
    const character = String.fromCodePoint(point);
    this.#at += character.length;
    return character;
  }
}

function literal(character: string): string {
  return codePoint(character.codePointAt(0) ?? 0);
}

function codePoint(point: number): string {
  if (point > 0x10ffff) throw bad('a character beyond Unicode');
  return `\\u{${point.toString(16)}}`;
}

function rangeOf(from: string, to: string): string {
  const ends = [from, to].map((end) => /^\\u\{([0-9a-f]+)\}$/.exec(end)?.[1]);
  if (ends[0] === undefined || ends[1] === undefined) throw bad('a class is no end of a range');
  if (Number.parseInt(ends[0], 16) > Number.parseInt(ends[1], 16)) throw bad('a range ends before it starts');
  return `${from}-${to}`;
}

function negated(inside: string): string {
  return `[^${inside}]`;
}

function propertyClass(match: RegExpExecArray): string {
  const name = match[3] ?? match[4] ?? '';
  const negate = (match[1] === 'P') !== (match[2] === '^');
  for (const form of [name, `Script=${name}`]) {
    const text = `\\${negate ? 'P' : 'p'}{${form}}`;
    if (isClass(text)) return text;
  }
  throw bad(`unknown class \\p{${name}}`);
}

function isClass(inside: string): boolean {
  try {
    return new RegExp(`[${inside}]`, 'v') !== undefined;
  } catch {
    return false;
  }
}

function compiled(source: string, flags: string): RegExp {
  try {
    return new RegExp(source, flags);
  } catch (error) {
    throw bad((error as Error).message);
  }
}

function bad(what: string): ShoalError {
  return new ShoalError('INVALID_ARGUMENT', `invalid regular expression: ${what}`);
}
