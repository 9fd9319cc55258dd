/** Answer of `GET /v1/mirrors`: what `shoal mirrors --json` prints. Fields are only ever added. */
export interface MirrorsReport {
  readonly enabled: boolean;
  readonly configPath: string;
  readonly registries: readonly RegistryMirrors[];
}

/** What is asked for one registry's content, in order. */
export interface RegistryMirrors {
  readonly registry: string;
  /** The `hosts.toml` in effect; absent when there is none. */
  readonly file?: string;
  /** Why the newest version of the file is not in effect. */
  readonly error?: string;
  readonly warnings: readonly string[];
  readonly mirrors: readonly MirrorStatus[];
  /** May the registry itself be asked when no mirror helps. */
  readonly origin: boolean;
}

export interface MirrorStatus {
  readonly url: string;
  readonly kind: 'mirror' | 'dragonfly' | 'proxy';
  readonly capabilities: readonly string[];
  /** `resting`: it failed, and is passed over until a health check succeeds; `on trial`: the next read tries it. */
  readonly health: 'ok' | 'resting' | 'on trial';
  /** Reads since the daemon started, for all registries it stands for. */
  readonly requests: number;
  readonly failures: number;
  /** Compressed bytes it gave for this registry. */
  readonly bytes: number;
  readonly lastError?: { readonly message: string; readonly at: string };
}
