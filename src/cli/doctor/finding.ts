/** One line of `shoal doctor`. */
export interface DoctorFinding {
  /** What was looked at: `kernel`, `containerd`, `disk`, `registry`, `daemon`. */
  readonly area: string;
  readonly level: 'ok' | 'warn' | 'fail';
  readonly text: string;
  /** What to type, or the text to put somewhere; absent when nothing is to be done. */
  readonly fix?: string;
}

/** Findings of one area, without repeating its name. */
export function findingsOf(area: string) {
  const add = (level: DoctorFinding['level']) => {
    return (text: string, fix?: string): DoctorFinding => ({
      area,
      level,
      text,
      ...(fix === undefined ? {} : { fix }),
    });
  };
  return { ok: add('ok'), warn: add('warn'), fail: add('fail') };
}
