/** Carries what is in memory to the durable queue, oldest first, block by block. */
import type { Block, Blocks } from "./blocks.ts";
import { takeBuffer } from "../queue/buffers.ts";
import { QueueFull, type QueueReader } from "../queue/queue.ts";

/** Appends under way at once: the disk never waits for us. */
const MOST_UNDER_WAY = 16;
/** A block that is not full yet waits this long for more. */
const GATHER_MS = 20;
/** How often a full queue is tried again. */
const RETRY_MS = 250;

export interface SpillerOptions {
  queue: QueueReader;
  blocks: Blocks;
  /** Where the source stands after a block. */
  positionAfter: (block: Block) => number;
  /** A block is on disk now, and need not be in memory any more. */
  onStored: () => void;
  /** The queue takes no more, or takes more again (undefined). */
  onFull: (why: "max" | "disk" | undefined) => void;
  /** It cannot go on. */
  onError: (error: Error) => void;
}

export class Spiller {
  /** End of what is on disk. */
  end: number;
  /** Bytes stored in this life. */
  stored = 0;
  full: "max" | "disk" | undefined;
  readonly #options: SpillerOptions;
  /** End of what was handed to the queue. */
  #handed: number;
  #underWay = 0;
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

  /** From now on all that is in memory goes to disk. */
  start(): void {
    this.#on = true;
    if (this.full !== undefined) this.#retry();
    this.pump();
  }

  /** What is under way is still stored; the rest stays in memory. */
  stop(): void {
    this.#on = false;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    // What was on disk has been read: there is room.
    if (this.full !== undefined) this.#options.onFull(this.full = undefined);
  }

  /** Stores all that is in memory, however little; resolves when it is done, or the queue is full. */
  async flush(): Promise<void> {
    this.#on = true;
    // Once more, if it was full: its reader may have gone on since.
    this.full = undefined;
    this.pump(true);
    while (this.#underWay > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  /** Looks for something to do; to be called when something was added. */
  pump(all = false): void {
    if (!this.#on) return;
    const { blocks } = this.#options;
    while (this.#underWay < MOST_UNDER_WAY && this.full === undefined) {
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
      if (this.full === undefined) this.pump();
      else this.#retry();
    }, ms);
  }

  async #append(block: Block, all: boolean): Promise<void> {
    const { queue, positionAfter, onStored, onFull, onError } = this.#options;
    block.sealed = true;
    this.#handed = block.end;
    this.#underWay++;
    // A copy: a write to the reader may be looking at the block, and append takes buffers over.
    const bytes = takeBuffer(block.length);
    bytes.set(block.bytes);
    try {
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
      // Those behind it fail as well, and all are tried again in order.
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
      this.#underWay--;
    }
    // Not at once: the one behind it may have failed by the same answer, which is seen only then, and
    // what comes behind that one must not be stored before it.
    queueMicrotask(() => this.#goOn(all));
  }

  #goOn(all: boolean): void {
    if (this.full !== undefined && this.#underWay === 0) this.#retry();
    this.pump(all);
    if (this.#underWay > 0) return;
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  #retry(): void {
    if (this.#timer !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      const block = this.#options.blocks.after(this.#handed);
      // One at a time, until one is taken.
      if (this.#on && block !== undefined) void this.#append(block, false);
    }, RETRY_MS);
  }
}
