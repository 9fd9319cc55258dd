/** Lets other work of the event loop run; throws the signal's reason when it was aborted meanwhile. */
export async function nextTurn(signal: AbortSignal): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
  signal.throwIfAborted();
}
