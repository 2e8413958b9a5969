/** Stores blocks from memory in the log, oldest first. */
import type { Block, Blocks } from "./blocks.ts";
import { type Log, QueueFull, Unavailable } from "../queue/queue.ts";

/** Limit of concurrent appends: enough that the disk always has work. */
const MOST_APPENDS = 16;
/** How long a block that is not full waits for more messages. */
const GATHER_MS = 20;
/** Pause before an append to a full or unreachable queue is tried again. */
const RETRY_MS = 250;

export interface SpillerOptions {
  log: Log;
  blocks: Blocks;
  /** The next block, at this offset, does not continue what is stored. It is stored after this. */
  beforeRun: (start: number) => Promise<void>;
  /** A block has been stored. */
  onStored: () => void;
  /** The queue has become full (the reason), or has room again (undefined). */
  onFull: (why: "max" | "disk" | undefined) => void;
  /** Makes room in a full queue; false: there is nothing to delete. */
  makeRoom?: (() => Promise<boolean>) | undefined;
  /** The queue failed and cannot be used any more. */
  onError: (error: Error) => void;
}

export class Spiller {
  /** Bytes stored by this process. */
  stored = 0;
  full: "max" | "disk" | undefined;
  /** `onFull` was told that the queue is full. */
  #told = false;
  readonly #options: SpillerOptions;
  /** Offset up to which blocks have been handed to the log. */
  #handed: number;
  #appends = 0;
  /** How often one has failed: those handed over before that fail with it. */
  #attempt = 0;
  #on = false;
  /** Blocks that are not full are stored at once. */
  #flushing = false;
  #failed = false;
  /** `beforeRun` or `makeRoom` is in progress. */
  #preparing = false;
  /** The block before which `beforeRun` has ended. */
  #prepared: Block | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #idle: (() => void)[] = [];

  constructor(options: SpillerOptions) {
    this.#options = options;
    this.#handed = options.log.end;
  }

  get on(): boolean {
    return this.#on;
  }

  /** From now on all blocks in memory are stored on disk. */
  start(): void {
    if (this.#failed) return;
    this.#on = true;
    if (this.full === undefined) this.appendReady();
    else this.#retryLater();
  }

  /** Appends in progress are completed; the rest stays in memory. */
  stop(): void {
    if (!this.#on) return;
    this.#on = false;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    // Called once all readers have caught up: the queue has room again.
    if (this.full !== undefined) this.#setFull(undefined);
  }

  /** Stores all blocks in memory, full or not; resolves when done, or when the queue is full. */
  async flush(): Promise<void> {
    if (this.#failed) return;
    this.#on = true;
    // A queue that was full is tried again: deliveries may have made room since.
    this.full = undefined;
    this.#flushing = true;
    this.appendReady();
    while (this.#appends > 0 || this.#preparing) await this.#settled();
    this.#flushing = false;
  }

  /** Nothing more is stored. */
  end(): void {
    this.#on = false;
    clearTimeout(this.#timer);
  }

  /** Starts appends of blocks that are ready; to be called when a message was added. */
  appendReady(): void {
    if (!this.#on) return;
    const { blocks } = this.#options;
    while (this.#appends < MOST_APPENDS && this.full === undefined && !this.#preparing) {
      const block = blocks.after(this.#handed);
      if (block === undefined) return;
      if (!block.sealed && !this.#flushing) {
        const wait = block.sinceMs + GATHER_MS - performance.now();
        if (wait > 0) return this.#later(wait);
      }
      if (block.offset !== this.#handed && block !== this.#prepared) {
        return void this.#prepare(block);
      }
      void this.#append(block);
    }
  }

  async #prepare(block: Block): Promise<void> {
    const { beforeRun } = this.#options;
    this.#preparing = true;
    try {
      while (this.#appends > 0) await this.#settled();
      await beforeRun(block.offset);
      this.#prepared = block;
    } catch (error) {
      this.#fail(error as Error);
    }
    this.#preparing = false;
    this.#continue();
  }

  /** Resolves when no append is in progress any more. */
  #settled(): Promise<void> {
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  #later(ms: number): void {
    if (this.#timer !== undefined || !this.#on) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      if (this.full === undefined) this.appendReady();
      else void this.#retry();
    }, ms);
  }

  async #append(block: Block): Promise<void> {
    const { log, onStored } = this.#options;
    const after = this.#handed;
    const attempt = this.#attempt;
    block.sealed = true;
    this.#handed = block.end;
    this.#appends++;
    block.pins++;
    try {
      const { offset, bytes, messages } = block;
      // Before it is released: so its buffer is used again.
      await log.append({ offset, bytes, messages }, after).finally(() => block.pins--);
      this.stored += block.length;
      if (this.full !== undefined || this.#told) this.#setFull(undefined);
      onStored();
    } catch (error) {
      // Those handed over after it fail as well, whatever their errors say.
      if (attempt === this.#attempt) this.#refused(error as Error, after);
    } finally {
      this.#appends--;
    }
    this.#continue();
  }

  /** The log did not store the block that begins after `after`: it and those after it are tried again. */
  #refused(error: Error, after: number): void {
    this.#attempt++;
    this.#handed = after;
    if (error instanceof QueueFull) {
      if (this.full === undefined) this.#setFull(error.reason);
    } else if (error instanceof Unavailable) {
      if (this.full === undefined) this.full = "disk";
    } else this.#fail(error);
  }

  #fail(error: Error): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#on = false;
    this.#options.onError(error);
  }

  #setFull(why: "max" | "disk" | undefined): void {
    this.full = why;
    // `flush` tries again without a word.
    if (this.#told === (why !== undefined)) return;
    this.#told = why !== undefined;
    this.#options.onFull(why);
  }

  #continue(): void {
    if (this.full !== undefined && this.#appends === 0 && this.#on) this.#retryLater();
    this.appendReady();
    this.#tellIdle();
  }

  #tellIdle(): void {
    if (this.#appends > 0) return;
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  #retryLater(): void {
    if (this.#options.makeRoom !== undefined) void this.#retry();
    else this.#later(RETRY_MS);
  }

  /** Tries one block: the others follow once it is stored. */
  async #retry(): Promise<void> {
    const { makeRoom, blocks, onError } = this.#options;
    if (this.#appends > 0 || this.#preparing) return;
    if (makeRoom !== undefined) {
      this.#preparing = true;
      const made = await makeRoom().catch((error) => {
        onError(error as Error);
        return false;
      });
      this.#preparing = false;
      if (!made) {
        this.#later(RETRY_MS);
        return this.#tellIdle();
      }
    }
    const block = blocks.after(this.#handed);
    if (this.#on && block !== undefined) void this.#append(block);
    else if (block === undefined) this.#setFull(undefined);
    this.#tellIdle();
  }
}
