/** A byte range of a device. */
export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

/** What to fetch before it is asked for, from the cold reads of one device. Pure; see `createReadahead`. */
export interface Readahead {
  /**
   * A cold read of this range happened, rounded out to whole chunks. Gives the range to fetch ahead, at most
   * `allowance` bytes, or undefined when the read does not continue an earlier one or enough is under way.
   */
  onFault(fault: ByteRange, allowance: number): ByteRange | undefined;
}

interface Stream {
  /** End of the furthest read. */
  position: number;
  /** End of what was asked for ahead, >= position. */
  ahead: number;
  /** Bytes to stay ahead; 0 until a second read continues the first. */
  window: number;
  /** First edge behind the last read's beginning. */
  edge: number;
  /** Edges passed in a row, with no other read in between. */
  passed: number;
}

/** First window, bytes: a few network round trips' worth, little lost when the reader stops. */
const MIN_WINDOW_BYTES = 1024 * 1024;
/** Largest window, bytes: covers 100 ms at 160 MB/s, and bounds what one stream holds in memory. */
const MAX_WINDOW_BYTES = 16 * 1024 * 1024;
/** Files read at the same time that are told apart. */
const MAX_STREAMS = 8;
/** How far a read may lie from where it was expected and still continue the stream, bytes: fault-around, small holes. */
const SLACK_BYTES = 256 * 1024;
/**
 * Sequential detection. Only cold reads are seen: a reader inside what was fetched ahead is silent, so a stream goes on
 * wherever a read falls between its last position and the end of what was asked for. Each time less than half the
 * window is left ahead, the window doubles and the rest is asked for. A random read starts a stream and asks nothing.
 * A window ends where the file ends. A reader that goes on into the next file keeps its window, which reaches beyond the
 * next end by the first window, and by twice that with each further file.
 */
export function createReadahead(init: {
  deviceSize: number;
  /** Leading bytes that are fetched anyway because the image marks them: a read inside asks for nothing beyond them. */
  markedBytes?: number;
  /** Where the file ends that this byte is in, or where the next one begins: see `fileEdges`. */
  edgeAfter?: (offset: number) => number;
  minWindowBytes?: number;
  maxWindowBytes?: number;
}): Readahead {
  const { deviceSize, markedBytes = 0, edgeAfter = () => deviceSize } = init;
  const { minWindowBytes = MIN_WINDOW_BYTES, maxWindowBytes = MAX_WINDOW_BYTES } = init;
  /** Most recently used first. */
  const streams: Stream[] = [];

  /** The stream this read continues, now the most recently used. */
  function streamOf(fault: ByteRange): Stream | undefined {
    const index = streams.findIndex(
      ({ position, ahead }) =>
        fault.offset >= position - SLACK_BYTES - fault.length &&
        fault.offset + fault.length > position - SLACK_BYTES &&
        fault.offset <= ahead + SLACK_BYTES,
    );
    if (index === -1) return undefined;
    const [stream] = streams.splice(index, 1) as [Stream];
    streams.unshift(stream);
    const edge = edgeAfter(fault.offset);
    if (edge > stream.edge) {
      // What continues an older stream may be one more file out of many, that happens to lie behind it.
      stream.passed = index === 0 ? stream.passed + 1 : 0;
      stream.edge = edge;
    }
    return stream;
  }

  /** Where windows of this stream end at the latest, its reader having come to `end`. */
  function limitOf({ edge, passed }: Stream, end: number): number {
    if (end <= markedBytes) return markedBytes;
    // Each file that is read on into the next makes it likelier that the one after that is read too.
    const beyond = passed === 0 ? 0 : Math.min(maxWindowBytes, minWindowBytes * 2 ** (passed - 1));
    return Math.min(deviceSize, edge + beyond);
  }

  return {
    onFault(fault, allowance) {
      const end = fault.offset + fault.length;
      const stream = streamOf(fault);
      if (stream === undefined) {
        streams.unshift({ position: end, ahead: end, window: 0, edge: edgeAfter(fault.offset), passed: 0 });
        streams.length = Math.min(streams.length, MAX_STREAMS);
        return undefined;
      }
      if (end <= stream.position) return undefined;
      stream.position = end;
      stream.ahead = Math.max(stream.ahead, end);
      const limit = limitOf(stream, end);
      if (stream.ahead >= limit) return undefined;
      if (stream.window > 0 && stream.ahead - end >= stream.window / 2) return undefined;
      const wanted = stream.window === 0 ? Math.max(minWindowBytes, fault.length) : 2 * stream.window;
      stream.window = Math.min(maxWindowBytes, wanted);
      const target = Math.min(limit, end + stream.window, stream.ahead + Math.max(0, allowance));
      if (target <= stream.ahead) return undefined;
      const ahead = { offset: stream.ahead, length: target - stream.ahead };
      stream.ahead = target;
      return ahead;
    },
  };
}
