import { type Digest, parseDigest } from '../../core/digest.ts';
import { hasCode } from '../../errors.ts';
import type { LayerDescriptor } from '../layer-reader.ts';
import { TOC_DIGEST_ANNOTATION } from './estargz.ts';
import { codedTocDigest } from './zstdchunked.ts';

/**
 * What pins the index of an eStargz or zstd:chunked layer, so that it can be had by its digest: the JSON's digest, or that
 * of the compressed TOC. Undefined for other layers, and for a digest that is none.
 */
export function indexDigestOf(layer: LayerDescriptor): Digest | undefined {
  const text = codedTocDigest(layer) ?? layer.annotations[TOC_DIGEST_ANNOTATION];
  try {
    return text === undefined ? undefined : parseDigest(text);
  } catch (error) {
    if (hasCode(error, 'INVALID_DIGEST')) return undefined;
    throw error;
  }
}
