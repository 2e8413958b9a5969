/** Stores blocks from memory in the durable queue, oldest first. */
import type { Block, Blocks } from "./blocks.ts";
import { takeBuffer } from "../queue/buffers.ts";
import { QueueFull, type QueueReader } from "../queue/queue.ts";

/** Limit of concurrent appends: enough that the disk always has work. */
const MOST_APPENDS = 16;
/** How long a block that is not full waits for more messages. */
const GATHER_MS = 20;
/** Pause before an append to a full queue is retried. */
const RETRY_MS = 250;

export interface SpillerOptions {
  queue: QueueReader;
  blocks: Blocks;
  /** Position of the source after a block. */
  positionAfter: (block: Block) => number;
  /** A block has been stored: its memory can be freed. */
  onStored: () => void;
  /** The queue has become full (the reason), or has room again (undefined). */
  onFull: (why: "max" | "disk" | undefined) => void;
  /** The queue failed and cannot be used any more. */
  onError: (error: Error) => void;
}

export class Spiller {
  /** Offset up to which the stream is stored. */
  end: number;
  /** Bytes stored by this process. */
  stored = 0;
  full: "max" | "disk" | undefined;
  readonly #options: SpillerOptions;
  /** Offset up to which blocks have been handed to the queue. */
  #handed: number;
  #appends = 0;
  #on = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #idle: (() => void)[] = [];

  constructor(options: SpillerOptions) {
    this.#options = options;
    this.end = this.#handed = options.queue.tail;
  }

  get on(): boolean {
    return this.#on;
  }

  /** From now on all blocks in memory are stored on disk. */
  start(): void {
    this.#on = true;
    if (this.full !== undefined) this.#retry();
    this.appendReady();
  }

  /** Appends in progress are completed; the rest stays in memory. */
  stop(): void {
    this.#on = false;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    // Called once the reader has caught up: the queue has room again.
    if (this.full !== undefined) this.#options.onFull(this.full = undefined);
  }

  /** Stores all blocks in memory, full or not; resolves when done, or when the queue is full. */
  async flush(): Promise<void> {
    this.#on = true;
    // A queue that was full is tried again: deliveries may have made room since.
    this.full = undefined;
    this.appendReady(true);
    while (this.#appends > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  /** Starts appends of blocks that are ready, or of all; to be called when a message was added. */
  appendReady(all = false): void {
    if (!this.#on) return;
    const { blocks } = this.#options;
    while (this.#appends < MOST_APPENDS && this.full === undefined) {
      const block = blocks.after(this.#handed);
      if (block === undefined) return;
      if (!block.sealed && !all) {
        const wait = block.sinceMs + GATHER_MS - performance.now();
        if (wait > 0) return this.#later(wait);
      }
      void this.#append(block, all);
    }
  }

  #later(ms: number): void {
    if (this.#timer !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      if (this.full === undefined) this.appendReady();
      else this.#retry();
    }, ms);
  }

  async #append(block: Block, all: boolean): Promise<void> {
    const { queue, positionAfter, onStored, onFull, onError } = this.#options;
    block.sealed = true;
    this.#handed = block.end;
    this.#appends++;
    try {
      // A copy: append transfers its buffer, and a write to the reader may still use the block.
      const bytes = takeBuffer(block.length);
      bytes.set(block.bytes);
      await queue.append({
        offset: block.offset,
        bytes,
        messages: block.messages,
        position: positionAfter(block),
      });
      this.end = block.end;
      this.stored += block.length;
      if (this.full !== undefined) onFull(this.full = undefined);
      onStored();
    } catch (error) {
      // The appends after it fail as well; all are retried in order.
      this.#handed = Math.min(this.#handed, block.offset);
      if (error instanceof QueueFull) {
        if (this.full === undefined) {
          this.full = error.reason;
          onFull(error.reason);
        }
      } else {
        this.#on = false;
        onError(error as Error);
      }
    } finally {
      this.#appends--;
    }
    // In a later microtask: the same report of the queue may reject the next append too. That has to
    // be seen first, so that no block is stored before one that failed.
    queueMicrotask(() => this.#continue(all));
  }

  #continue(all: boolean): void {
    if (this.full !== undefined && this.#appends === 0) this.#retry();
    this.appendReady(all);
    if (this.#appends > 0) return;
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  #retry(): void {
    if (this.#timer !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      const block = this.#options.blocks.after(this.#handed);
      // One at a time until an append succeeds.
      if (this.#on && block !== undefined) void this.#append(block, false);
    }, RETRY_MS);
  }
}
