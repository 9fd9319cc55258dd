/** Credentials of a pull, by the CRI's names. */
export interface PullAuth {
  readonly username?: string;
  readonly password?: string;
  readonly auth?: string;
  readonly serverAddress?: string;
  readonly identityToken?: string;
  readonly registryToken?: string;
}

/** A length-delimited protobuf field. */
export function field(number: number, value: string | Uint8Array): Buffer {
  const bytes = Buffer.from(value as string);
  return Buffer.concat([varint(number * 8 + 2), varint(bytes.byteLength), bytes]);
}

/** A PullImageRequest as kubelet sends it, with a sandbox configuration and a field nobody knows. */
export function pullRequest(image: string, auth: PullAuth | undefined): Buffer {
  const { username, password, auth: encoded, serverAddress, identityToken, registryToken } = auth ?? {};
  const values = [username, password, encoded, serverAddress, identityToken, registryToken];
  const config = values.map((value, index) => (value === undefined ? Buffer.alloc(0) : field(index + 1, value)));
  const parts = [field(1, Buffer.concat([field(1, image), field(18, image)])), field(3, field(1, 'sandbox'))];
  if (auth !== undefined) parts.push(field(2, Buffer.concat(config)));
  return Buffer.concat([...parts, field(1999, 'from the future'), Buffer.from([0x40, 0x96, 0x01])]);
}

/** One gRPC message. */
export function frame(message: Uint8Array): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.byteLength, 1);
  return Buffer.concat([head, message]);
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) | 0x80);
  return Buffer.from([...bytes, rest]);
}
