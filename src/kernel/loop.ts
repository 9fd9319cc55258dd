import { ShoalError } from '../errors.ts';
import { AT_FDCWD, checked, closeRaw, ERRNO, O, openFd, openRaw, syscallRaw, syscallRawAsync } from './libc.ts';

const LOOP_CONFIGURE = 0x4c0a;
const LOOP_CTL_GET_FREE = 0x4c82;
const LO_FLAGS_READ_ONLY = 1;
const LO_FLAGS_AUTOCLEAR = 4;
const CONFIG_BYTES = 304;
const CONFIG_FLAGS_OFFSET = 8 + 52;
const CONFIG_NAME_OFFSET = 8 + 56;
const CONFIG_NAME_BYTES = 64;
/** Another process can take the free device between asking and configuring; this many times in a row means something else. */
const MAX_ATTEMPTS = 64;

/** A read-only loop device on a file: goes by itself when nothing has it open any more. */
export interface LoopDevice {
  /** `/dev/loop7` */
  readonly path: string;
  /** `loop7` */
  readonly name: string;
  /** Lets go of the device; it stays while a mount uses it. Idempotent. */
  [Symbol.dispose](): void;
}

/**
 * Attaches `file` read-only to a free loop device, buffered I/O, cleared automatically (loop(4), kernel 5.8).
 * KERNEL_CALL when there is no loop driver or no node in /dev. `file` may lie on a FUSE mount that this process serves.
 * Reads through a loop device raise no fanotify event.
 */
export async function attachLoop(file: string): Promise<LoopDevice> {
  const flags = O.RDONLY | O.CLOEXEC;
  const backing = checked('open', await syscallRawAsync('openat', AT_FDCWD, file, flags, 0), file);
  try {
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt += 1) {
      const device = await tryFreeDevice(backing, file);
      if (device !== undefined) return device;
    }
    throw new ShoalError('KERNEL_CALL', `no loop device for ${file}: ${MAX_ATTEMPTS} were taken by others meanwhile`);
  } finally {
    // closing a file on FUSE waits for its server
    await syscallRawAsync('close', backing);
  }
}

async function tryFreeDevice(backing: number, file: string): Promise<LoopDevice | undefined> {
  const name = `loop${freeNumber()}`;
  const path = `/dev/${name}`;
  const opened = openRaw(path, O.RDONLY);
  if (opened === -ERRNO.EBUSY) return undefined;
  let fd = checked('open', opened, `${path}: is devtmpfs mounted on /dev?`);
  const configured = await syscallRawAsync('ioctl', fd, LOOP_CONFIGURE, loopConfig(backing, file));
  if (configured < 0) {
    closeRaw(fd);
    if (configured === -ERRNO.EBUSY) return undefined;
    checked('LOOP_CONFIGURE', configured, `${file} on ${path}`);
  }
  return {
    path,
    name,
    [Symbol.dispose]() {
      if (fd >= 0) closeRaw(fd);
      fd = -1;
    },
  };
}

function freeNumber(): number {
  const control = openFd('/dev/loop-control', O.RDWR);
  try {
    return checked('LOOP_CTL_GET_FREE', syscallRaw('ioctl', control, LOOP_CTL_GET_FREE));
  } finally {
    closeRaw(control);
  }
}

// struct loop_config {u32 fd, u32 block_size, struct loop_info64 info, u64 reserved[8]}
function loopConfig(backing: number, file: string): Uint8Array {
  const config = Buffer.alloc(CONFIG_BYTES);
  config.writeUInt32LE(backing, 0);
  config.writeUInt32LE(LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR, CONFIG_FLAGS_OFFSET);
  config.write(file, CONFIG_NAME_OFFSET, CONFIG_NAME_BYTES - 1, 'utf8');
  return config;
}
