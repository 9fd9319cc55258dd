import { ShoalError } from '../errors.ts';

/** A kernel refusal as MOUNT_FAILED naming `target`, errno kept; anything else as it is. */
export function asMountError(error: unknown, target: string): unknown {
  if (!(error instanceof ShoalError) || error.code !== 'KERNEL_CALL') return error;
  return new ShoalError('MOUNT_FAILED', `${target}: ${error.message}`, { ...error.context, cause: error });
}
