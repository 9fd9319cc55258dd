/** What each chunk holder holds: chunks of 1 MiB, the same in every process. */
export function holderContents(chunks: number): Uint8Array[] {
  return Array.from({ length: chunks }, (_, index) => Buffer.alloc(1024 * 1024, `chunk ${index} of ${chunks};`));
}
