import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseDigest, sha256 } from '../../src/core/digest.ts';
import { hasCode, ShoalError } from '../../src/errors.ts';
import { type ImageIndex, INDEX_TYPES, MANIFEST_TYPES, parseManifest } from '../../src/image/manifest.ts';
import { chooseManifest, formatPlatform, hostPlatform, normalizePlatform } from '../../src/image/platform.ts';

const LAYOUT = new URL('../fixtures/small/oci-estargz/', import.meta.url);
const DIGEST = `sha256:${'ab'.repeat(32)}`;
const CONFIG = { mediaType: 'application/vnd.oci.image.config.v1+json', digest: DIGEST, size: 2 };
const LAYER = { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest: DIGEST, size: 10 };

function encode(value: unknown): Uint8Array {
  return Buffer.from(typeof value === 'string' ? value : JSON.stringify(value));
}

function manifest(fields: object = {}): Record<string, unknown> {
  return { schemaVersion: 2, mediaType: MANIFEST_TYPES[0], config: CONFIG, layers: [LAYER], ...fields };
}

function index(entries: object[], fields: object = {}): ImageIndex {
  const manifests = entries.map((platform) => ({ mediaType: MANIFEST_TYPES[0], digest: DIGEST, size: 5, ...platform }));
  const parsed = parseManifest(encode({ schemaVersion: 2, mediaType: INDEX_TYPES[0], manifests, ...fields }));
  assert.equal(parsed.kind, 'index');
  return parsed as ImageIndex;
}

test('a manifest made by another tool is read with its digest, layers and annotations', () => {
  const [{ digest, size }] = JSON.parse(readFileSync(new URL('index.json', LAYOUT), 'utf8')).manifests;
  const bytes = readFileSync(new URL(`blobs/sha256/${digest.slice(7)}`, LAYOUT));
  const parsed = parseManifest(bytes, { digest: parseDigest(digest), size, mediaType: MANIFEST_TYPES[0] });
  assert.ok(parsed.kind === 'manifest');
  assert.equal(parsed.digest, digest);
  assert.equal(parsed.config.size, 318);
  assert.deepEqual(
    parsed.layers.map((layer) => [layer.size, layer.foreign]),
    [
      [3341068, false],
      [180871, false],
    ],
  );
  assert.match(parsed.layers[0]?.annotations['containerd.io/snapshot/stargz/toc.digest'] ?? '', /^sha256:/);
});

test('Docker schema 2, a missing media type and foreign layers are understood', () => {
  const docker = manifest({
    mediaType: MANIFEST_TYPES[1],
    layers: [
      {
        ...LAYER,
        mediaType: 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
        urls: ['http://169.254.169.254/'],
      },
      { ...LAYER, mediaType: 'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip' },
      { ...LAYER, mediaType: 'application/vnd.docker.image.rootfs.diff.tar.gzip' },
    ],
  });
  const parsed = parseManifest(encode(docker));
  assert.ok(parsed.kind === 'manifest');
  assert.deepEqual(
    parsed.layers.map((layer) => layer.foreign),
    [true, true, false],
  );
  assert.ok(!JSON.stringify(parsed).includes('169.254'), 'urls are not kept anywhere');
  const { mediaType: _, ...untyped } = manifest();
  assert.equal(parseManifest(encode(untyped)).mediaType, MANIFEST_TYPES[0]);
});

test('hostile and broken manifests are refused within 100 ms', () => {
  const deep = `{"schemaVersion":2,"layers":${'['.repeat(10_000)}${']'.repeat(10_000)}}`;
  const cases: [string, unknown, RegExp][] = [
    ['5 MiB', `${JSON.stringify(manifest())}${' '.repeat(5 * 1024 * 1024)}`, /limit 4194304/],
    ['depth 10,000', deep, /deeper/],
    ['both lists', manifest({ manifests: [] }), /both/],
    ['duplicate key', JSON.stringify(manifest()).replace('"layers":', '"layers":[],"layers":'), /twice/],
    ['escaped duplicate key', JSON.stringify(manifest()).replace('"layers":', '"l\\u0061yers":[],"layers":'), /twice/],
    ['key in another case', manifest({ Layers: [] }), /must be written "layers"/],
    ['key in another case within a layer', manifest({ layers: [{ ...LAYER, Digest: DIGEST }] }), /must be written/],
    ['100,000 layers', manifest({ layers: new Array(100_000).fill(0) }), /entries/],
    ['1,001 layers', manifest({ layers: new Array(1001).fill(LAYER) }), /1001 entries/],
    [
      '1.3 million empty lists',
      `{"schemaVersion":2,"x":[${'[],'.repeat(1_300_000)}[]]}`,
      /more than 120000 JSON tokens/,
    ],
    ['unknown media type', manifest({ mediaType: 'application/json' }), /media type/],
    ['index type on a manifest', manifest({ mediaType: INDEX_TYPES[0] }), /media type/],
    ['schema 1', { schemaVersion: 1, fsLayers: [] }, /schemaVersion is 1/],
    ['no layers', { schemaVersion: 2, config: CONFIG }, /layers/],
    ['no config', { schemaVersion: 2, layers: [] }, /config/],
    ['bad digest', manifest({ layers: [{ ...LAYER, digest: 'sha256:../../x' }] }), /layers\[0\]\.digest/],
    ['negative size', manifest({ layers: [{ ...LAYER, size: -1 }] }), /size/],
    ['unsafe size', JSON.stringify(manifest()).replace('"size":10', '"size":9007199254740993'), /size/],
    ['annotation of another type', manifest({ annotations: { a: 1 } }), /annotations/],
    ['layers not a list', manifest({ layers: {} }), /not a list/],
    ['layer null', manifest({ layers: [null] }), /not an object/],
    ['not JSON', '{', /not JSON/],
    ['a string that never ends, of escaped quotes', `"${'\\"'.repeat(500_000)}`, /not JSON/],
    ['list', '[]', /not an object/],
    ['empty', '', /not JSON/],
    ['not UTF-8', '', /UTF-8/],
  ];
  for (const [name, document, why] of cases) {
    const bytes = name === 'not UTF-8' ? Uint8Array.of(0x22, 0xff, 0x22) : encode(document);
    const start = performance.now();
    assert.throws(
      () => parseManifest(bytes),
      (error) => hasCode(error, 'INVALID_MANIFEST') && why.test(error.message),
      name,
    );
    // some 50 ms when nothing else runs; what is looked for here is a scan whose time grows with the square
    assert.ok(performance.now() - start < 2_000, `${name} took ${performance.now() - start} ms`);
  }
});

test('bytes that are not what the descriptor promised are refused', () => {
  const bytes = encode(manifest());
  assert.ok(parseManifest(bytes, { digest: sha256(bytes), size: bytes.byteLength }));
  assert.throws(() => parseManifest(bytes, { digest: parseDigest(DIGEST) }), /its digest is/);
  assert.throws(() => parseManifest(bytes, { size: bytes.byteLength + 1 }), /its descriptor says/);
  assert.throws(() => parseManifest(bytes, { mediaType: MANIFEST_TYPES[1] }), /expected/);
  assert.throws(() => parseManifest(bytes, { mediaType: INDEX_TYPES[0] }), /media type/);
});

test('the platform is chosen as containerd chooses it', () => {
  const entry = (os: string, architecture: string, variant?: string) => ({
    platform: { os, architecture, ...(variant === undefined ? {} : { variant }) },
    annotations: { name: [os, architecture, variant].join('/') },
  });
  const many = index([
    entry('windows', 'amd64'),
    entry('linux', '386'),
    entry('linux', 'arm', 'v6'),
    entry('linux', 'arm', 'v7'),
    entry('linux', 'arm64', 'v8'),
    entry('linux', 'x86_64'),
    entry('unknown', 'unknown'),
  ]);
  const chosen = (architecture: string, variant = ''): string | undefined =>
    chooseManifest(many, normalizePlatform({ os: 'linux', architecture, variant })).annotations.name;
  assert.equal(chosen('amd64'), 'linux/x86_64/');
  assert.equal(chosen('amd64', 'v3'), 'linux/x86_64/');
  assert.equal(chosen('arm64'), 'linux/arm64/v8');
  assert.equal(chosen('arm'), 'linux/arm/v7');
  assert.equal(chosen('arm', 'v6'), 'linux/arm/v6');
  assert.throws(() => chosen('s390x'), /no manifest for linux\/s390x; the image has windows\/amd64/);
  assert.equal(chooseManifest(index([entry('linux', '386')]), hostPlatform('x64')).annotations.name, 'linux/386/');
  assert.equal(
    chooseManifest(index([{}]), hostPlatform('x64')).digest,
    DIGEST,
    'an entry without platform is taken last',
  );
  assert.throws(
    () => chooseManifest(index([]), hostPlatform('x64')),
    (error) => hasCode(error, 'NOT_FOUND'),
  );
  assert.equal(formatPlatform(hostPlatform('arm64')), 'linux/arm64');
});

test('no input makes the parser throw anything but INVALID_MANIFEST', () => {
  const mutated = fc
    .tuple(
      fc.constantFrom(JSON.stringify(manifest()), JSON.stringify(manifest({ layers: undefined, manifests: [LAYER] }))),
      fc.nat(),
      fc.string(),
    )
    .map(
      ([text, at, insert]) =>
        `${text.slice(0, at % text.length)}${insert}${text.slice((at % text.length) + insert.length)}`,
    );
  const shaped = fc.record(
    {
      schemaVersion: fc.constant(2),
      mediaType: fc.constantFrom(...MANIFEST_TYPES, ...INDEX_TYPES),
      config: fc.anything(),
      layers: fc.anything(),
      manifests: fc.anything(),
      annotations: fc.anything(),
    },
    { requiredKeys: ['schemaVersion'] },
  );
  const json = shaped.map(
    (value) => JSON.stringify(value, (_key, each) => (typeof each === 'bigint' ? `${each}` : each)) ?? '',
  );
  fc.assert(
    fc.property(fc.oneof(mutated, json, fc.json()), (text) => {
      try {
        const parsed = parseManifest(encode(text));
        for (const each of parsed.kind === 'index' ? parsed.manifests : parsed.layers) parseDigest(each.digest);
      } catch (error) {
        assert.ok(error instanceof ShoalError && error.code === 'INVALID_MANIFEST', String(error));
      }
    }),
    { numRuns: 1500 },
  );
});
