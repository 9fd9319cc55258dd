import { ShoalError } from '../errors.ts';

/** One piece of a filter; `at` is its first character. An illegal token's text is what is wrong with it. */
export interface Token {
  readonly kind: 'end' | 'field' | 'value' | 'quoted' | 'separator' | 'operator' | 'illegal' | 'other';
  readonly at: number;
  readonly text: string;
}

const SIMPLE_ESCAPES: Readonly<Record<string, number>> = {
  a: 7,
  b: 8,
  f: 12,
  n: 10,
  r: 13,
  t: 9,
  v: 11,
  '\\': 92,
};
/** Digits that follow `\x`, `\u` and `\U`. */
const HEX_DIGITS: Readonly<Record<string, number>> = { x: 2, u: 4, U: 8 };

/** Cuts a filter into tokens as containerd does (pkg/filters): what a word is depends on whether an operator came before. */
export class FilterScanner {
  readonly #input: string;
  #at = 0;
  #expectValue = false;

  constructor(input: string) {
    this.#input = input;
  }

  /** Where the next character is. */
  get position(): number {
    return this.#at;
  }

  /** The next character, without skipping spaces; empty at the end. */
  peek(): string {
    const point = this.#input.codePointAt(this.#at);
    return point === undefined ? '' : String.fromCodePoint(point);
  }

  next(): Token {
    while (isSpace(this.peek())) this.#at += this.peek().length;
    const at = this.#at;
    const first = this.peek();
    if (first === '') return { kind: 'end', at, text: '' };
    if (first === '\0') return this.#take(1, { kind: 'illegal', at, text: 'unexpected null' });
    if ('/|"'.includes(first)) return this.#quoted(first);
    if (first === ',' || first === '.') {
      this.#expectValue = false;
      return this.#take(1, { kind: 'separator', at, text: first });
    }
    if ('=!~'.includes(first)) {
      this.#expectValue = true;
      return { kind: 'operator', at, text: this.#word((character) => '=!~'.includes(character)) };
    }
    if (this.#expectValue) {
      this.#expectValue = false;
      return { kind: 'value', at, text: this.#word(isValueCharacter, first.length) };
    }
    if (isFieldCharacter(first)) return { kind: 'field', at, text: this.#word(isFieldCharacter) };
    return this.#take(first.length, { kind: 'other', at, text: first });
  }

  #take(length: number, token: Token): Token {
    this.#at += length;
    return token;
  }

  /** Characters from here on that belong; the first `sure` code units do so unasked. */
  #word(belongs: (character: string) => boolean, sure = 0): string {
    const start = this.#at;
    this.#at += sure;
    for (let character = this.peek(); character !== '' && belongs(character); character = this.peek()) {
      this.#at += character.length;
    }
    return this.#input.slice(start, this.#at);
  }

  #quoted(quote: string): Token {
    const at = this.#at;
    this.#at += 1;
    let problem = '';
    for (let character = this.peek(); character !== quote; character = this.peek()) {
      if (character === '' || character === '\n' || character === '\0') {
        this.#at = this.#input.length;
        return { kind: 'illegal', at, text: 'quoted literal not terminated' };
      }
      this.#at += character.length;
      if (character === '\\') {
        const escaped = readEscape(this.#input, this.#at, quote);
        if ('problem' in escaped) problem ||= escaped.problem;
        else this.#at = escaped.end;
      }
    }
    this.#at += 1;
    if (problem !== '') return { kind: 'illegal', at, text: problem };
    return { kind: 'quoted', at, text: this.#input.slice(at, this.#at) };
  }
}

/** What a quoted token means; Go string syntax with `"`, `/` or `|` around it. Undefined for a character beyond Unicode. */
export function unquote(token: string): string | undefined {
  const quote = token[0] as string;
  const inner = token.slice(1, -1);
  if (!inner.includes('\\')) return inner;
  const parts: Buffer[] = [];
  for (let at = 0; at < inner.length; ) {
    const backslash = inner.indexOf('\\', at);
    const end = backslash === -1 ? inner.length : backslash;
    parts.push(Buffer.from(inner.slice(at, end)));
    if (backslash === -1) break;
    const escaped = readEscape(inner, end + 1, quote);
    if ('problem' in escaped || escaped.value > 0x10ffff) return undefined;
    parts.push(escaped.isByte ? Buffer.from([escaped.value]) : Buffer.from(String.fromCodePoint(escaped.value)));
    at = escaped.end;
  }
  return Buffer.concat(parts).toString();
}

type Escape = { value: number; isByte: boolean; end: number } | { problem: string };

/** Reads the escape whose backslash lies just before `at`. */
function readEscape(text: string, at: number, quote: string): Escape {
  const kind = text[at] ?? '';
  if (kind === quote) return { value: quote.charCodeAt(0), isByte: true, end: at + 1 };
  const simple = Object.hasOwn(SIMPLE_ESCAPES, kind) ? SIMPLE_ESCAPES[kind] : undefined;
  if (simple !== undefined) return { value: simple, isByte: true, end: at + 1 };
  if (kind >= '0' && kind <= '7') return digits(text, at, { count: 3, radix: 8, isByte: true });
  const count = Object.hasOwn(HEX_DIGITS, kind) ? HEX_DIGITS[kind] : undefined;
  if (count !== undefined) return digits(text, at + 1, { count, radix: 16, isByte: kind === 'x' });
  return { problem: 'illegal escape sequence' };
}

function digits(text: string, at: number, form: { count: number; radix: 8 | 16; isByte: boolean }): Escape {
  const found = text.slice(at, at + form.count);
  const legal = form.radix === 8 ? /^[0-7]+$/ : /^[0-9a-fA-F]+$/;
  const value = Number.parseInt(found, form.radix);
  if (found.length < form.count || !legal.test(found) || (form.radix === 8 && value > 255)) {
    return { problem: 'illegal numeric escape sequence' };
  }
  return { value, isByte: form.isByte, end: at + form.count };
}

/** INVALID_ARGUMENT that shows where in the filter the trouble is, as containerd shows it. */
export function filterError(input: string, at: number, message: string): ShoalError {
  const point = input.codePointAt(at);
  const shown =
    point === undefined
      ? `[${input}]`
      : `[${input.slice(0, at)} >|${String.fromCodePoint(point)}|< ${input.slice(at + String.fromCodePoint(point).length)}]`;
  return new ShoalError('INVALID_ARGUMENT', `filters: parse error: ${shown}: ${message} (position ${at})`);
}

function isSpace(character: string): boolean {
  return character !== '' && /^\p{White_Space}$/u.test(character);
}

function isFieldCharacter(character: string): boolean {
  return /^[A-Za-z0-9_-]$/.test(character);
}

function isValueCharacter(character: string): boolean {
  return character !== ',' && /^[\p{L}\p{M}\p{N}\p{P}\p{S}]$/u.test(character);
}
