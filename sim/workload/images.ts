import { dirname, resolve } from 'node:path';
import type { Random } from '../engine/random.ts';
import type { Scenario } from '../scenario/scenario.ts';
import { type Catalog, makeImage, type SimImage } from './image.ts';
import { loadTrace } from './trace.ts';
import { unitChunks } from './units.ts';

/** All images of a scenario by name, those that others share with first. `path`: the scenario's file, for its traces. */
export function makeImages(
  components: { catalog: Catalog; random: Random },
  scenario: Scenario,
  init: { path: string },
): ReadonlyMap<string, SimImage> {
  const made = new Map<string, SimImage>();
  const unit = unitChunks(scenario);
  const make = (name: string): SimImage => {
    const known = made.get(name);
    if (known !== undefined) return known;
    const spec = scenario.image[name] as Scenario['image'][string];
    const base = spec.sharesWith === undefined ? undefined : make(spec.sharesWith);
    // One stream for all: images that share most of their content are read alike.
    const random = components.random.fork('files');
    const image =
      spec.trace === undefined
        ? makeImage({ ...components, random }, { name, spec, unit, base })
        : loadTrace(components.catalog, { name, path: resolve(dirname(init.path), spec.trace) });
    made.set(name, image);
    return image;
  };
  for (const name of Object.keys(scenario.image)) make(name);
  return made;
}
