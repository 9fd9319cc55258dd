/** Whether something that keeps failing is still worth trying: after so many failures in a row only now and then. */
export interface Sampling {
  /** To be asked before each try. */
  worthTrying(): boolean;
  /** How the try ended; one success and all are tried again. */
  tried(succeeded: boolean): void;
}

/** After `failures` in a row each `each`-th try is made. */
export function createSampling({ failures, each }: { failures: number; each: number }): Sampling {
  let inRow = 0;
  let asked = 0;
  return {
    worthTrying() {
      if (inRow < failures) return true;
      asked += 1;
      return asked % each === 0;
    },
    tried(succeeded) {
      if (succeeded) {
        inRow = 0;
        asked = 0;
      } else inRow += 1;
    },
  };
}
