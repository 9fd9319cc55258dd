import { ShoalError } from '../errors.ts';
import { type Anchor, type CharacterTest, parseRegexSyntax, type RegexNode } from './regex-parser.ts';

/** Characters of a pattern. */
export const MAX_PATTERN_LENGTH = 1000;
/** Steps of a compiled pattern, which bounds the work per character of text. */
const MAX_STEPS = 10_000;

/** A program for the simulation below; `next` counts from the step itself. */
type Step =
  | { readonly kind: 'character'; readonly test: CharacterTest }
  | { readonly kind: 'anchor'; readonly anchor: Anchor }
  | { readonly kind: 'split'; readonly next: readonly number[] }
  | { readonly kind: 'match' };

/**
 * Compiles a Go regular expression to a test for "occurs somewhere in the text". It runs all alternatives side by side
 * (Thompson), so time is linear in the text whatever the pattern: JavaScript's own engine backtracks, and one
 * `(a+)+$` in a filter would stop the daemon. Throws INVALID_ARGUMENT.
 */
export function compileRegex(pattern: string): (text: string) => boolean {
  if (pattern.length > MAX_PATTERN_LENGTH) {
    throw new ShoalError('INVALID_ARGUMENT', `regular expression is longer than ${MAX_PATTERN_LENGTH} characters`);
  }
  const program: Step[] = [...stepsOf(parseRegexSyntax(pattern)), { kind: 'match' }];
  return (text) => run(program, text);
}

function stepsOf(node: RegexNode): Step[] {
  switch (node.kind) {
    case 'empty':
      return [];
    case 'character':
    case 'anchor':
      return [node];
    case 'sequence':
      return limited(node.parts.flatMap(stepsOf));
    case 'either':
      return node.parts.map(stepsOf).reduceRight((rest, part) => either(part, rest));
    case 'repeat':
      return repeat(stepsOf(node.part), node.min, node.max);
  }
}

function either(first: readonly Step[], second: readonly Step[]): Step[] {
  return limited([
    { kind: 'split', next: [1, first.length + 2] },
    ...first,
    { kind: 'split', next: [second.length + 1] },
    ...second,
  ]);
}

function repeat(part: readonly Step[], min: number, max: number): Step[] {
  const copies = max === Infinity ? Math.max(min, 1) : max;
  if (copies * (part.length + 1) > MAX_STEPS) throw tooLarge();
  const steps: Step[] = [];
  for (let copy = 0; copy < min; copy += 1) steps.push(...part);
  if (max === Infinity) {
    if (min > 0) return [...steps, { kind: 'split', next: [-part.length, 1] }];
    return [{ kind: 'split', next: [1, part.length + 2] }, ...part, { kind: 'split', next: [-part.length, 1] }];
  }
  for (let left = max - min; left > 0; left -= 1) {
    steps.push({ kind: 'split', next: [1, left * (part.length + 1)] }, ...part);
  }
  return steps;
}

function limited(steps: Step[]): Step[] {
  if (steps.length > MAX_STEPS) throw tooLarge();
  return steps;
}

function tooLarge(): ShoalError {
  return new ShoalError('INVALID_ARGUMENT', 'invalid regular expression: it expands to too many steps');
}

function run(program: readonly Step[], text: string): boolean {
  // seen[step] = index + 1 of the position at which the step was last entered: no clearing between characters.
  const seen = new Uint32Array(program.length);
  let waiting: number[] = [];
  let before = '';
  for (let at = 0; ; ) {
    const point = text.codePointAt(at);
    const character = point === undefined ? '' : String.fromCodePoint(point);
    const entered: number[] = [];
    const enter = (start: number): boolean => {
      const stack = [start];
      for (let step = stack.pop(); step !== undefined; step = stack.pop()) {
        if (seen[step] === at + 1) continue;
        seen[step] = at + 1;
        const found = program[step] as Step;
        if (found.kind === 'match') return true;
        if (found.kind === 'split') for (const next of found.next) stack.push(step + next);
        else if (found.kind === 'character') entered.push(step);
        else if (holds(found.anchor, before, character)) stack.push(step + 1);
      }
      return false;
    };
    for (const step of waiting) if (enter(step)) return true;
    if (enter(0)) return true;
    if (character === '') return false;
    waiting = [];
    for (const step of entered) {
      if ((program[step] as { test: CharacterTest }).test(character)) waiting.push(step + 1);
    }
    before = character;
    at += character.length;
  }
}

/** Whether an anchor holds between two characters; empty ones are the ends of the text. */
function holds(anchor: Anchor, before: string, after: string): boolean {
  switch (anchor) {
    case 'text-start':
      return before === '';
    case 'text-end':
      return after === '';
    case 'line-start':
      return before === '' || before === '\n';
    case 'line-end':
      return after === '' || after === '\n';
    case 'word':
      return isWord(before) !== isWord(after);
    case 'not-word':
      return isWord(before) === isWord(after);
  }
}

function isWord(character: string): boolean {
  return /^[0-9A-Za-z_]$/.test(character);
}
