/** Bytes that may go at a steady rate, with a burst after idle time. Pure: the caller brings the time and waits. */
export interface ByteRate {
  /** Counts `bytes` as gone and gives the ms to wait before they may go; 0 when they may at once. */
  take(nowMs: number, bytes: number): number;
}

/** A limit of `bytesPerSecond` (0: none); after idle time `burstBytes` may go at once. */
export function createByteRate(init: { bytesPerSecond: number; burstBytes: number }): ByteRate {
  const { bytesPerSecond, burstBytes } = init;
  let allowance = burstBytes;
  let lastMs: number | undefined;
  return {
    take(nowMs, bytes) {
      if (bytesPerSecond === 0) return 0;
      allowance = Math.min(burstBytes, allowance + ((nowMs - (lastMs ?? nowMs)) * bytesPerSecond) / 1000);
      lastMs = nowMs;
      // what one take overdraws, later ones wait for: a request larger than the burst still goes
      const waitMs = allowance >= 0 ? 0 : (-allowance / bytesPerSecond) * 1000;
      allowance -= bytes;
      return waitMs;
    },
  };
}
