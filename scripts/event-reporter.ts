import type { TestEvent } from 'node:test/reporters';

/** What one test of a file came to; one JSON line each. */
export interface TestResult {
  readonly name: string;
  readonly outcome: 'passed' | 'failed' | 'skipped';
  /** Why it was skipped, or the error with its stack. */
  readonly detail: string;
}

/** The reporter for `node --test-reporter`, which asks for a default export: a JSON line per test; suites only when they were skipped as a whole. */
export default async function* eventReporter(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const path: string[] = [];
  for await (const event of events) {
    if (event.type === 'test:start') path.splice(event.data.nesting, path.length, event.data.name);
    if (event.type !== 'test:pass' && event.type !== 'test:fail') continue;
    const { data } = event;
    const result = (outcome: TestResult['outcome'], detail: string): string =>
      `${JSON.stringify({ name: [...path.slice(0, data.nesting), data.name].join(' > '), outcome, detail })}\n`;
    const given = data.skip ?? data.todo;
    if (event.type === 'test:pass' && given !== undefined && given !== false) {
      yield result('skipped', typeof given === 'string' && given !== '' ? given : 'no reason given');
    } else if (event.type === 'test:fail' && failureType(event.data.details.error) !== 'subtestsFailed') {
      yield result('failed', explain(event.data.details.error));
    } else if (event.type === 'test:pass' && data.details.type !== 'suite') {
      yield result('passed', '');
    }
  }
}

function explain(error: Error): string {
  const cause = error.cause;
  if (cause instanceof Error) return cause.stack ?? cause.message;
  return cause === undefined ? error.message : `${error.message}: ${String(cause)}`;
}

/** Node's word for what kind of failure it was; its types don't know the property. */
function failureType(error: Error): unknown {
  return 'failureType' in error ? error.failureType : undefined;
}
