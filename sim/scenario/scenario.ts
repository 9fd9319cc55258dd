import type { ARRIVAL_KINDS, POLICY_NAMES } from './schema.ts';

/** A policy by name. */
export type PolicyName = (typeof POLICY_NAMES)[number];

/** How starts are spread over time. */
export type ArrivalKind = (typeof ARRIVAL_KINDS)[number];

/** A part of the nodes that differs. */
export interface GroupSpec {
  readonly share: number;
  readonly upMbitPerS?: number;
  readonly downMbitPerS?: number;
}

/** A zone. */
export interface ZoneSpec {
  readonly parent?: string;
  readonly weight: number;
  readonly upMbitPerS?: number;
  readonly downMbitPerS?: number;
  readonly latencyMs: number;
}

/** An image. */
export interface ImageSpec {
  readonly sizeMib: number;
  readonly layers: number;
  readonly chunkKib: number;
  readonly fileKib: number;
  readonly compressed: number;
  readonly readShare: number;
  readonly orderSkew: number;
  readonly thinkMs: number;
  readonly readers: number;
  readonly sharesWith?: string;
  readonly sharedLayers: number;
  readonly shared: number;
  readonly trace?: string;
}

/** Starts of containers. */
export interface ArrivalSpec {
  readonly image: string;
  readonly kind: ArrivalKind;
  readonly atS: number;
  readonly nodes?: number;
  readonly surge: number;
  readonly pauseS: number;
  readonly perS?: number;
  readonly overS?: number;
}

/** Nodes that die. */
export interface ChurnSpec {
  readonly share: number;
  readonly atS: number;
  readonly overS: number;
  readonly backAfterS?: number;
  readonly keepsDisk: boolean;
}

/** A scenario with every default filled in; see the schema for what each key means. */
export interface Scenario {
  readonly title: string;
  readonly seed: number;
  readonly policies: readonly PolicyName[];
  readonly limitS: number;
  readonly nodes: {
    readonly count: number;
    readonly upMbitPerS: number;
    readonly downMbitPerS: number;
    readonly latencyMs: number;
    readonly cores: number;
    readonly perMachine: number;
    readonly group: Readonly<Record<string, GroupSpec>>;
  };
  readonly zone: Readonly<Record<string, ZoneSpec>>;
  readonly registry: { readonly egressMbitPerS: number; readonly latencyMs: number; readonly requestsPerS: number };
  readonly image: Readonly<Record<string, ImageSpec>>;
  readonly arrival: Readonly<Record<string, ArrivalSpec>>;
  readonly churn: Readonly<Record<string, ChurnSpec>>;
  readonly shoal: {
    readonly claims: boolean;
    readonly readahead: boolean;
    readonly hints: boolean;
    readonly hintOrder: 'layers' | 'mixed';
    readonly replication: number;
    readonly background: boolean;
    readonly refuseUndirected: boolean;
    readonly uploadMbitPerS: number;
    readonly requestKib: number;
    readonly registryConnections: number;
    readonly fresh: boolean;
  };
  readonly simulation: { readonly unitKib?: number };
  readonly plain: { readonly layersAtOnce: number };
  readonly wholeLayer: { readonly resolveMs: number; readonly layersAtOnce: number };
  readonly scheduler: {
    readonly seedPeers: number;
    readonly seedUpMbitPerS: number;
    readonly pieceMib: number;
    readonly piecesAtOnce: number;
    readonly parents: number;
    readonly uploads: number;
    readonly layersAtOnce: number;
  };
}

/** Bytes per ms of a capacity in Mbit/s. */
export function bytesPerMs(mbitPerS: number): number {
  return mbitPerS * 125;
}
