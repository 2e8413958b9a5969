/**
 * Records on disk how far each reader of a stream has come, and so knows what the source may discard.
 */
import type { StreamCursor } from "./stream_cursor.ts";
import type { StreamOptions, StreamState } from "./stream_options.ts";

/** How long what readers acknowledge is gathered before it is recorded; ms. */
const RECORD_MS = 50;

export class Records {
  readonly #options: StreamOptions;
  readonly #state: StreamState;
  /** Start of the last part that was stored without a gap. */
  runStart: number;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #stopped = false;

  constructor(options: StreamOptions, state: StreamState) {
    this.#options = options;
    this.#state = state;
    this.runStart = options.log?.start ?? 0;
  }

  /** Offset before which no reader will need the source again; undefined: nothing tells. */
  get safe(): number | undefined {
    const { log, durable, policy } = this.#options;
    const { cursors, tail } = this.#state;
    const durableEnd = log?.durableEnd ?? 0;
    // Without readers that are on disk, nothing records how far the source has come.
    let isKnown = durable || (log === undefined && cursors.size > 0);
    let safe = durable ? durableEnd : tail;
    for (const { stored, delivered, connected } of cursors) {
      if (!connected && !policy.keepsForAbsentReaders) continue;
      isKnown ||= stored !== undefined;
      const recorded = stored?.durable ?? delivered;
      safe = Math.min(safe, recorded < this.runStart ? recorded : Math.max(recorded, durableEnd));
    }
    return isKnown ? safe : undefined;
  }

  /**
   * A part is about to be stored that does not continue what is stored. All readers have what is between:
   * were they not recorded beyond it, they would miss it after a restart.
   */
  async beginRun(start: number): Promise<void> {
    await this.now();
    this.runStart = start;
  }

  /** Records within some 50 ms. */
  soon(): void {
    if (this.#stopped) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.now().then(() => this.awaitSync(), this.#options.onError);
    }, RECORD_MS);
  }

  /** What is written becomes safe only with the next sync, and nothing else may come after it. */
  awaitSync(): void {
    const { log } = this.#options;
    if (log !== undefined && log.durableEnd < log.end) this.soon();
  }

  /** Records now; resolves once that is durable. */
  async now(): Promise<void> {
    const { log, onSafe } = this.#options;
    if (log === undefined) return;
    for (const cursor of this.#state.cursors) {
      const offset = this.#offsetOf(cursor);
      if (offset !== undefined) cursor.stored?.release(offset);
    }
    await log.settled();
    onSafe();
  }

  /** Until `start` only `now` records. */
  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  start(): void {
    this.#stopped = false;
    this.soon();
  }

  /**
   * Where this reader continues after a restart. What is not on disk then comes from the source again,
   * which can only continue at the start of a message. Undefined: unchanged.
   */
  #offsetOf({ delivered }: StreamCursor): number | undefined {
    const { tail, blocks } = this.#state;
    // After a kill, a reader may have more than has come from the source again.
    if (delivered >= tail) return tail;
    // Also at the end of what is stored: after it there may be offsets without bytes.
    if (delivered <= this.#options.log!.end) return delivered;
    const block = blocks.at(delivered);
    if (block === undefined) return undefined;
    return block.offset + this.#options.floor(block.bytes, delivered - block.offset);
  }
}
