/** The registries of images that somebody asked for: containerd, or who mounts by hand. */
export interface AskedRegistries {
  /** An image of this registry was asked for. */
  admit(registry: string): void;
  has(registry: string): boolean;
}

/** Registries remembered; a node has a few. Those not asked for longest go first, and come back with their next image. */
const MAX_REGISTRIES = 1_024;

/** Nothing was asked for yet. */
export function createAskedRegistries(): AskedRegistries {
  const asked = new Set<string>();
  return {
    admit(registry) {
      asked.delete(registry);
      asked.add(registry);
      const oldest = asked.keys().next().value;
      if (asked.size > MAX_REGISTRIES && oldest !== undefined) asked.delete(oldest);
    },
    has: (registry) => asked.has(registry),
  };
}
