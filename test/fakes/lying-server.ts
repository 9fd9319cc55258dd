/** Loaded before the daemon (`node --import`): its chunk server flips a bit of every chunk that it sends. */
import { ServerResponse } from 'node:http';

const { end } = ServerResponse.prototype;

function lie(this: ServerResponse, ...args: unknown[]): ServerResponse {
  const [body, ...rest] = args;
  const isChunk = this.req.url?.startsWith('/chunk/') === true && body instanceof Uint8Array && body.byteLength > 0;
  if (!isChunk) return Reflect.apply(end, this, args);
  const wrong = Uint8Array.from(body);
  wrong[wrong.length >> 1] = (wrong[wrong.length >> 1] as number) ^ 1;
  return Reflect.apply(end, this, [wrong, ...rest]);
}

ServerResponse.prototype.end = lie as typeof end;
