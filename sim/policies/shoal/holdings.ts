/**
 * Which node holds which contents, one bit each. Those of all nodes lie in one array: nearly every event looks at another
 * node, and this much of all of them stays in the processor's cache.
 */
export class Holdings {
  readonly #bits: Uint8Array;
  /** Bytes of one node. */
  readonly #stride: number;

  constructor(init: { nodes: number; contents: number }) {
    this.#stride = Math.ceil(init.contents / 8);
    this.#bits = new Uint8Array(this.#stride * init.nodes);
  }

  /** `node`: its number among the nodes. */
  has(node: number, content: number): boolean {
    return ((this.#bits[node * this.#stride + (content >>> 3)] as number) & (1 << (content & 7))) !== 0;
  }

  keep(node: number, content: number): void {
    const at = node * this.#stride + (content >>> 3);
    this.#bits[at] = (this.#bits[at] as number) | (1 << (content & 7));
  }

  /** The node holds nothing any more. */
  wipe(node: number): void {
    this.#bits.fill(0, node * this.#stride, (node + 1) * this.#stride);
  }

  /** Sets `mask` in each of the rows whose content the node holds, clears it in the others; false when it holds none. */
  mark(rows: Uint32Array, mask: number, init: { node: number; contents: Uint32Array }): boolean {
    const { node, contents } = init;
    let any = false;
    for (let row = 0; row < rows.length; row += 1) {
      const has = this.has(node, contents[row] as number);
      any ||= has;
      rows[row] = has ? (rows[row] as number) | mask : (rows[row] as number) & ~mask;
    }
    return any;
  }
}
