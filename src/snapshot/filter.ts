import { ShoalError } from '../errors.ts';
import { FilterScanner, filterError, type Token, unquote } from './filter-scanner.ts';
import { compileRegex } from './regex.ts';
import type { SnapshotInfo } from './snapshot-info.ts';

/** True for the snapshots that were asked for. */
export type SnapshotFilter = (info: SnapshotInfo) => boolean;

/** Characters of one filter; containerd's own are below 300. */
export const MAX_FILTER_LENGTH = 16 * 1024;
/** Filters of one List. */
export const MAX_FILTERS = 1024;

/**
 * Compiles containerd filters (pkg/filters): each a comma-separated list of `field`, `field==value`, `field!=value` or
 * `field~=regex`, all of which must hold; a snapshot passes when any filter does, or when there is none.
 * Throws INVALID_ARGUMENT with the position.
 */
export function parseFilters(filters: readonly string[]): SnapshotFilter {
  if (filters.length > MAX_FILTERS) throw new ShoalError('INVALID_ARGUMENT', `more than ${MAX_FILTERS} filters`);
  if (filters.length === 0) return () => true;
  const parsed = filters.map(parseFilter);
  return parsed.length === 1 ? (parsed[0] as SnapshotFilter) : (info) => parsed.some((filter) => filter(info));
}

function parseFilter(input: string): SnapshotFilter {
  if (input.length > MAX_FILTER_LENGTH) {
    throw new ShoalError('INVALID_ARGUMENT', `a filter is longer than ${MAX_FILTER_LENGTH} characters`);
  }
  if (input === '') return () => true;
  const scanner = new FilterScanner(input);
  const selectors = [parseSelector(input, scanner)];
  while (scanner.peek() !== '') {
    if (scanner.peek() !== ',') throw filterError(input, scanner.position, `unexpected input: ${scanner.peek()}`);
    scanner.next();
    selectors.push(parseSelector(input, scanner));
  }
  return (info) => selectors.every((selector) => selector(info));
}

function parseSelector(input: string, scanner: FilterScanner): SnapshotFilter {
  const path = [parseField(input, scanner)];
  while (scanner.peek() === '.') {
    scanner.next();
    path.push(parseField(input, scanner));
  }
  const read = fieldReader(path);
  if (scanner.peek() === ',' || scanner.peek() === '') return (info) => read(info) !== undefined;
  const operator = scanner.next();
  if (operator.kind === 'illegal') throw filterError(input, operator.at, operator.text);
  if (operator.kind !== 'operator') {
    throw filterError(input, operator.at, 'expected an operator ("=="|"!="|"~=")');
  }
  const at = operator.at;
  switch (operator.text) {
    case '==': {
      const value = parseValue(input, scanner, false);
      return (info) => read(info) === value;
    }
    case '!=': {
      const value = parseValue(input, scanner, false);
      return (info) => (read(info) ?? '') !== value;
    }
    case '~=': {
      const matches = parseRegex(input, scanner);
      return (info) => matches(read(info) ?? '');
    }
    default:
      throw filterError(input, at, `unsupported operator ${JSON.stringify(operator.text)}`);
  }
}

function parseField(input: string, scanner: FilterScanner): string {
  const token = scanner.next();
  if (token.kind === 'field') return token.text;
  if (token.kind === 'quoted') return unquoted(input, token, false);
  throw filterError(input, token.at, token.kind === 'illegal' ? token.text : 'expected field or quoted');
}

function parseValue(input: string, scanner: FilterScanner, anyQuote: boolean): string {
  const token = scanner.next();
  if (token.kind === 'value' || token.kind === 'field') return token.text;
  if (token.kind === 'quoted') return unquoted(input, token, anyQuote);
  throw filterError(input, token.at, token.kind === 'illegal' ? token.text : 'expected value or quoted');
}

function parseRegex(input: string, scanner: FilterScanner): (text: string) => boolean {
  const at = scanner.position;
  const pattern = parseValue(input, scanner, true);
  try {
    return compileRegex(pattern);
  } catch (error) {
    if (!(error instanceof ShoalError)) throw error;
    throw filterError(input, at, error.message);
  }
}

/** Only a regex may stand between `/` or `|`. */
function unquoted(input: string, token: Token, anyQuote: boolean): string {
  if (!anyQuote && !token.text.startsWith('"')) throw filterError(input, token.at, 'invalid quote encountered');
  const text = unquote(token.text);
  if (text === undefined) throw filterError(input, token.at, 'unquoting failed: quote syntax error');
  return text;
}

/** What a field path means for a snapshot; undefined: the snapshot has no such field. */
function fieldReader(path: readonly string[]): (info: SnapshotInfo) => string | undefined {
  switch (path[0]) {
    case 'kind':
      return (info) => info.kind;
    case 'name':
      return (info) => info.name;
    case 'parent':
      return (info) => info.parent;
    case 'labels': {
      const label = path.slice(1).join('.');
      return (info) => info.labels.get(label);
    }
    default:
      return () => undefined;
  }
}
