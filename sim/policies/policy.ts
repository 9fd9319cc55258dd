import type { Random } from '../engine/random.ts';
import type { Host } from '../network/host.ts';
import type { World } from '../network/world.ts';
import type { Scenario } from '../scenario/scenario.ts';
import type { ReadPlan, SimImage } from '../workload/image.ts';

/** A container that starts on a node. */
export interface Start {
  readonly host: Host;
  readonly image: SimImage;
  /** Its cold reads. */
  readonly plan: ReadPlan;
  /** The last of its reads is answered. Later calls do nothing. */
  ready(): void;
}

/** A way to bring images to nodes. */
export interface Policy {
  start(start: Start): void;
  /** The node died; what it was doing is void. */
  died(host: Host): void;
  /** It is back. */
  returned(host: Host, init: { keepsDisk: boolean }): void;
}

/** What a policy works with. */
export interface PolicyComponents {
  readonly world: World;
  readonly scenario: Scenario;
  readonly images: readonly SimImage[];
  readonly random: Random;
  /** Contents and layers over all images. */
  readonly contents: number;
  readonly blobs: number;
}
