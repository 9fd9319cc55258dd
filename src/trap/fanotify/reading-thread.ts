import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import { ShoalError } from '../../errors.ts';
import { openEventFd, wakeEventFd } from '../../kernel/fanotify.ts';
import { closeRaw } from '../../kernel/libc.ts';
import { COUNTER, type Command, FLAG, type Notice, type ThreadDevice, type ThreadInit } from './thread-protocol.ts';

/** Plenty for a few hundred device records; the maps themselves are shared memory. */
const THREAD_LIMITS = { maxOldGenerationSizeMb: 32, maxYoungGenerationSizeMb: 4, stackSizeMb: 1 };

/** The main thread's end of the thread that reads the group. */
export interface ReadingThread {
  /** Makes a device known; once resolved its events are answered. */
  attach(device: ThreadDevice): Promise<void>;
  /** Drops a device unless its inode belongs to another by now. */
  forget(device: ThreadDevice): Promise<void>;
  /** From now on every read is denied. */
  deny(): void;
  /** Counts an event's descriptor as closed. */
  closedOne(): void;
  /** Ends the thread: after `deny`, with nothing left unanswered in the queue. Idempotent. */
  stop(): Promise<void>;
  readonly counters: { readonly warm: number; readonly cold: number; readonly denied: number };
}

/** What the thread tells; `died` when it ended without being asked. */
export interface ThreadListener {
  notice(notice: Exclude<Notice, { kind: 'ready' | 'done' }>): void;
  died(error: ShoalError): void;
}

type Init = Pick<ThreadInit, 'group' | 'journalFd' | 'maxInFlight' | 'devices'>;

/** Starts the thread and resolves once it reads. Throws TRAP_UNAVAILABLE when it cannot start. */
export async function startReadingThread(listener: ThreadListener, init: Init): Promise<ReadingThread> {
  const thread = new WorkerThread(listener, init);
  await thread.begin();
  return thread;
}

class WorkerThread implements ReadingThread {
  readonly #listener: ThreadListener;
  readonly #worker: Worker;
  readonly #port: MessagePort;
  readonly #wakeFd = openEventFd();
  readonly #flags = new Int32Array(new SharedArrayBuffer(4 * FLAG.COUNT));
  readonly #counters = new Float64Array(new SharedArrayBuffer(8 * COUNTER.COUNT));
  readonly #waiting = new Map<number, () => void>();
  readonly #ready = Promise.withResolvers<void>();
  readonly #exited = Promise.withResolvers<void>();
  /** Node waits for its threads when it exits, and this one waits in poll(2). */
  readonly #onProcessExit = (): void => {
    Atomics.store(this.#flags, FLAG.EXITING, 1);
    wakeEventFd(this.#wakeFd);
  };
  #token = 0;
  #stopping = false;

  constructor(listener: ThreadListener, init: Init) {
    this.#listener = listener;
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    const workerData: ThreadInit = {
      ...init,
      wakeFd: this.#wakeFd,
      port: port2,
      flags: this.#flags,
      counters: this.#counters,
    };
    // beside this file both as source and when compiled
    const file = import.meta.url.endsWith('.ts') ? './thread.ts' : './thread.js';
    this.#worker = new Worker(new URL(file, import.meta.url), {
      workerData,
      transferList: [port2],
      resourceLimits: THREAD_LIMITS,
      name: 'fanotify',
    });
  }

  get counters(): ReadingThread['counters'] {
    const [warm, cold, denied] = this.#counters as unknown as [number, number, number];
    return { warm, cold, denied };
  }

  async begin(): Promise<void> {
    let failure: unknown;
    process.on('exit', this.#onProcessExit);
    this.#worker.on('error', (error) => {
      failure = error;
    });
    this.#worker.on('exit', () => {
      this.#exited.resolve();
      for (const resolve of this.#waiting.values()) resolve();
      const error = new ShoalError('TRAP_UNAVAILABLE', 'the thread that reads fanotify events ended', {
        cause: failure,
      });
      this.#ready.reject(error);
      if (!this.#stopping) this.#listener.died(error);
    });
    this.#port.on('message', (notice: Notice) => this.#onNotice(notice));
    await this.#ready.promise;
  }

  async attach(device: ThreadDevice): Promise<void> {
    await this.#tell({ kind: 'attach', token: this.#nextToken(), device });
  }

  async forget(device: ThreadDevice): Promise<void> {
    if (!this.#stopping) await this.#tell({ kind: 'forget', token: this.#nextToken(), device });
  }

  deny(): void {
    Atomics.store(this.#flags, FLAG.FAILED, 1);
  }

  closedOne(): void {
    Atomics.sub(this.#flags, FLAG.IN_FLIGHT, 1);
    if (Atomics.exchange(this.#flags, FLAG.THROTTLED, 0) === 1 && !this.#stopping) wakeEventFd(this.#wakeFd);
  }

  async stop(): Promise<void> {
    if (!this.#stopping) {
      this.#stopping = true;
      await this.#tell({ kind: 'stop', token: this.#nextToken() });
      await this.#exited.promise;
      this.#port.close();
      closeRaw(this.#wakeFd);
      process.off('exit', this.#onProcessExit);
    }
    await this.#exited.promise;
  }

  #nextToken(): number {
    this.#token += 1;
    return this.#token;
  }

  #tell(command: Command): Promise<void> {
    const done = Promise.withResolvers<void>();
    this.#waiting.set(command.token, done.resolve);
    this.#port.postMessage(command);
    wakeEventFd(this.#wakeFd);
    return Promise.race([done.promise, this.#exited.promise]);
  }

  #onNotice(notice: Notice): void {
    if (notice.kind === 'ready') this.#ready.resolve();
    else if (notice.kind === 'done') {
      this.#waiting.get(notice.token)?.();
      this.#waiting.delete(notice.token);
    } else this.#listener.notice(notice);
  }
}
