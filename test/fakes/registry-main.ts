/**
 * `node test/fakes/registry-main.ts OCI-LAYOUT REPOSITORY TAG`: a registry double as a program. Prints one line of JSON,
 * `{"host", "control"}`, and runs until its standard input ends.
 */
import { FakeRegistry } from './registry.ts';
import { startRegistryControl } from './registry-control.ts';

const [layout, repository, tag] = process.argv.slice(2);
if (layout === undefined || repository === undefined || tag === undefined) {
  process.stderr.write('usage: registry-main.ts OCI-LAYOUT REPOSITORY TAG\n');
  process.exit(64);
}
const registry = await FakeRegistry.start();
registry.addOciLayout(layout, repository, tag);
const control = await startRegistryControl(registry);
process.stdout.write(`${JSON.stringify({ host: registry.host, control: control.host })}\n`);
process.stdin.resume().on('end', () => process.exit(0));
