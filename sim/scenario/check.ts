import type { ShoalError } from '../../src/errors.ts';
import type { ArrivalSpec, ImageSpec, Scenario } from './scenario.ts';

/** Makes the error for a key: the message with file and line. */
type Refuse = (path: readonly string[], message: string) => ShoalError;

/** Which keys of an arrival belong to which kind only. */
const KEYS_OF_KIND = { perS: ['per_s', 'poisson'], overS: ['over_s', 'burst'] } as const;

/** Refuses what the schema alone cannot: what does not exist, goes in circles or can't happen. Throws CONFIG_INVALID. */
export function checkScenario(scenario: Scenario, refuse: Refuse): void {
  checkZones(scenario, refuse);
  checkGroups(scenario, refuse);
  if (Object.keys(scenario.image).length === 0) throw refuse(['image'], 'image: there is no image');
  for (const [name, image] of Object.entries(scenario.image)) checkImage(name, image, scenario, refuse);
  if (Object.keys(scenario.arrival).length === 0) throw refuse(['arrival'], 'arrival: nothing ever starts');
  for (const [name, arrival] of Object.entries(scenario.arrival)) checkArrival(name, arrival, scenario, refuse);
}

function checkZones({ zone }: Scenario, refuse: Refuse): void {
  const names = Object.keys(zone);
  for (const name of names) {
    const seen = [name];
    for (let up = zone[name]?.parent; up !== undefined; up = zone[up]?.parent) {
      const path = ['zone', seen.at(-1) as string, 'parent'];
      if (zone[up] === undefined) throw refuse(path, `zone.${path[1]}.parent: there is no zone ${up}`);
      if (up === name) throw refuse(path, `zone.${name} lies in itself: ${[...seen, up].join(' → ')}`);
      if (seen.includes(up)) break; // a circle further up, which is found from there
      seen.push(up);
    }
  }
  if (names.length > 0 && !names.some((name) => (zone[name]?.weight ?? 0) > 0)) {
    throw refuse(['zone'], 'zone: no zone has a weight above 0, so no node is anywhere');
  }
}

function checkGroups({ nodes }: Scenario, refuse: Refuse): void {
  let sum = 0;
  for (const [name, group] of Object.entries(nodes.group)) {
    sum += group.share;
    const path = ['nodes', 'group', name, 'share'];
    if (sum > 1 + 1e-9) throw refuse(path, `nodes.group.${name}.share: the groups add up to more than all nodes`);
  }
}

function checkImage(name: string, image: ImageSpec, scenario: Scenario, refuse: Refuse): void {
  const layerBytes = (image.sizeMib * 1024 * 1024) / image.layers;
  if (image.trace === undefined && image.chunkKib * 1024 > layerBytes) {
    throw refuse(['image', name, 'chunk_kib'], `image.${name}.chunk_kib: a chunk is larger than a layer`);
  }
  if (image.sharedLayers > image.layers) {
    throw refuse(['image', name, 'shared_layers'], `image.${name}.shared_layers: it has only ${image.layers} layers`);
  }
  const path = ['image', name, 'shares_with'];
  const seen = [name];
  for (let other = image.sharesWith; other !== undefined; other = scenario.image[other]?.sharesWith) {
    if (scenario.image[other] === undefined)
      throw refuse(path, `image.${name}.shares_with: there is no image ${other}`);
    if (seen.includes(other)) throw refuse(path, `image.${name}.shares_with goes in a circle`);
    seen.push(other);
  }
  const sharing = image.sharedLayers > 0 ? 'shared_layers' : image.shared > 0 ? 'shared' : undefined;
  if (sharing !== undefined && image.sharesWith === undefined) {
    throw refuse(['image', name, sharing], `image.${name}.${sharing} is set without shares_with`);
  }
}

function checkArrival(name: string, arrival: ArrivalSpec, scenario: Scenario, refuse: Refuse): void {
  const impossible = (key: string, message: string): ShoalError =>
    refuse(['arrival', name, key], `arrival.${name}.${key}: ${message}`);
  const { count } = scenario.nodes;
  if (scenario.image[arrival.image] === undefined) throw impossible('image', `there is no image ${arrival.image}`);
  if (arrival.nodes !== undefined && arrival.nodes > count) {
    throw impossible('nodes', `${arrival.nodes} nodes can't start it, there are ${count}`);
  }
  if (arrival.atS >= scenario.limitS)
    throw impossible('at_s', `comes after the end of the run at ${scenario.limitS} s`);
  for (const [field, [key, kind]] of Object.entries(KEYS_OF_KIND)) {
    const value = arrival[field as keyof typeof KEYS_OF_KIND];
    if (arrival.kind !== kind && value !== undefined) throw impossible(key, `only means something with kind ${kind}`);
    if (arrival.kind === kind && (value === undefined || value === 0)) {
      throw refuse(['arrival', name, key], `arrival.${name}: kind ${kind} needs ${key} above 0`);
    }
  }
  if (arrival.kind === 'rolling' && arrival.surge === 0) throw impossible('surge', 'with 0 no node ever starts');
}
