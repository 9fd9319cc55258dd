import type { World } from './network/world.ts';
import { bytesPerMs, type Scenario } from './scenario/scenario.ts';
import type { ReadPlan, SimImage } from './workload/image.ts';
import { thinkTimeMs } from './workload/reads.ts';

/** A start, for the bound. */
export interface BoundedStart {
  readonly node: number;
  readonly image: SimImage;
  readonly plan: ReadPlan;
  readonly arrivalMs: number;
}

/**
 * Times that no policy can beat on these links, whatever it knows: bytes flow like water, each leaves the registry once,
 * everything a node receives can be passed on at once, and messages take no time. Ascending durations, one per start.
 *
 * Each start needs its bytes through its own downlink, its zone's link needs each byte once, the registry each byte of
 * the image once since the first start, and the container its own work. When all start together, the k-th to be ready
 * also needs k copies to have left all uplinks together (Kumar and Ross, "Peer-Assisted File Distribution", 2006).
 */
export function fluidBound(
  components: { world: World; scenario: Scenario },
  init: { starts: readonly BoundedStart[]; extraUpBytesPerMs?: number },
): number[] {
  const { world, scenario } = components;
  const starts = [...init.starts].sort((a, b) => a.arrivalMs - b.arrivalMs);
  const egress = bytesPerMs(scenario.registry.egressMbitPerS);
  const atRegistry = firstTimes(starts, () => 'registry', egress);
  const inZone = firstTimes(
    starts,
    ({ node }) => zoneOf(world, node)?.name,
    ({ node }) => zoneOf(world, node)?.down?.bytesPerMs,
  );
  const held = heldBefore(starts);
  const needs: number[] = [];
  const bounds = starts.map((start) => {
    const bytes = takeNew(start, held);
    needs.push(bytes);
    const down = (world.nodes[start.node] as World['nodes'][number]).down.bytesPerMs;
    const shared = Math.max(atRegistry.get(start) ?? 0, inZone.get(start) ?? 0) - start.arrivalMs;
    return Math.max(bytes / down, shared, thinkTimeMs(start.plan), 0);
  });
  bounds.sort((a, b) => a - b);
  const first = starts[0]?.arrivalMs;
  if (starts.some(({ arrivalMs }) => arrivalMs !== first)) return bounds;
  needs.sort((a, b) => a - b);
  let ups = egress + (init.extraUpBytesPerMs ?? 0);
  for (const { up } of world.nodes) ups += up.bytesPerMs;
  let copies = 0;
  return bounds.map((bound, at) => {
    copies += needs[at] as number;
    return Math.max(bound, copies / ups);
  });
}

function zoneOf(world: World, node: number): World['zones'][number] | undefined {
  return world.nodes[node]?.zone;
}

/** An empty set of held contents for each node that has more than one start. */
function heldBefore(starts: readonly BoundedStart[]): Map<number, Set<number>> {
  const seen = new Set<number>();
  const held = new Map<number, Set<number>>();
  for (const { node } of starts) {
    if (seen.has(node)) held.set(node, new Set());
    seen.add(node);
  }
  return held;
}

/** Bytes of the start, as few as they can be sent as, that no earlier start on its node needs. */
function takeNew({ node, image, plan }: BoundedStart, held: Map<number, Set<number>>): number {
  const own = held.get(node);
  if (own === undefined) return Math.min(image.readBytes, image.readCompressedBytes);
  let bytes = 0;
  for (const at of plan.chunk) {
    const chunk = image.chunks[at] as SimImage['chunks'][number];
    if (own.has(chunk.content)) continue;
    own.add(chunk.content);
    bytes += Math.min(chunk.bytes, chunk.compressedBytes);
  }
  return bytes;
}

/**
 * Earliest time at which every byte a start needs can have passed a link that all of its place share: each content once,
 * not before the first start there that needs it.
 */
function firstTimes(
  starts: readonly BoundedStart[],
  placeOf: (start: BoundedStart) => string | undefined,
  capacity: number | ((start: BoundedStart) => number | undefined),
): Map<BoundedStart, number> {
  const times = new Map<BoundedStart, number>();
  const seen = new Map<string, { contents: Set<number>; byImage: Map<string, number> }>();
  for (const start of starts) {
    const place = placeOf(start);
    const perMs = typeof capacity === 'number' ? capacity : capacity(start);
    if (place === undefined || perMs === undefined) continue;
    const state = seen.get(place) ?? { contents: new Set<number>(), byImage: new Map<string, number>() };
    seen.set(place, state);
    let readyMs = state.byImage.get(start.image.name);
    if (readyMs === undefined) {
      let bytes = 0;
      for (const at of start.plan.chunk) {
        const chunk = start.image.chunks[at] as SimImage['chunks'][number];
        if (state.contents.has(chunk.content)) continue;
        state.contents.add(chunk.content);
        bytes += Math.min(chunk.bytes, chunk.compressedBytes);
      }
      readyMs = start.arrivalMs + bytes / perMs;
      state.byImage.set(start.image.name, readyMs);
    }
    times.set(start, readyMs);
  }
  return times;
}
