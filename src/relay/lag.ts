/**
 * How far readers are behind: only by bytes that they can still get. Offsets that nothing has, because
 * a killed server or a repair has used them up, or because messages were dropped, are no lag.
 */
import type { ReaderFigures } from "./figures.ts";
import { type Amount, type Log, messagesIn, wallClockMs } from "../queue/queue.ts";
import type { Hole, StreamCursor } from "./stream_cursor.ts";
import type { StreamState } from "./stream_options.ts";

/** How many of the offsets from `from` to `to` are in holes. */
function offsetsIn(holes: readonly Hole[], from: number, to: number): number {
  let sum = 0;
  for (const hole of holes) sum += Math.max(0, Math.min(to, hole.to) - Math.max(from, hole.from));
  return sum;
}

/** How many offsets of the stream from `offset` on have bytes, for some reader. */
export function bytesAfter({ tail, missing }: StreamState, offset: number): number {
  return Math.max(0, tail - offset - offsetsIn(missing, offset, tail));
}

export class Lag {
  readonly #log: Log | undefined;
  readonly #state: StreamState;
  /** When the next bytes of a reader came, where that had to be looked for. */
  readonly #cameAt: WeakMap<StreamCursor, { offset: number; ms: number | undefined }> =
    new WeakMap();

  constructor(log: Log | undefined, state: StreamState) {
    this.#log = log;
    this.#state = state;
  }

  /** `each`: messages of a byte where nothing else tells. */
  of(
    cursor: StreamCursor,
    each: number,
  ): Pick<ReaderFigures, "lagBytes" | "lagMessages" | "lagSeconds"> {
    const stored = this.#stored(cursor);
    const unstored = this.unstored(cursor);
    const lagBytes = stored.bytes + unstored;
    if (lagBytes === 0) return { lagBytes, lagMessages: 0, lagSeconds: 0 };
    const inMemory = this.#state.blocks.amountAfter(this.#from(cursor));
    const ofUnstored = inMemory.bytes > 0
      ? messagesIn(unstored, inMemory.bytes, inMemory.messages)
      : Math.round(unstored * each) || 0;
    const lagMessages = Math.max(1, stored.messages + ofUnstored);
    return { lagBytes, lagMessages, lagSeconds: this.#seconds(cursor) };
  }

  /** Bytes that this reader has not got. */
  bytes(cursor: StreamCursor): number {
    return this.#stored(cursor).bytes + this.unstored(cursor);
  }

  /** Those of them that are not on disk. */
  unstored(cursor: StreamCursor): number {
    return this.#bytesFrom(cursor, this.#from(cursor));
  }

  /** Those of them that are not on disk, and that its kernel has not accepted. */
  pending(cursor: StreamCursor): number {
    return this.#bytesFrom(cursor, Math.max(cursor.sent, this.#log?.end ?? 0));
  }

  /** What there is for this reader from an offset on. */
  #bytesFrom({ holes }: StreamCursor, from: number): number {
    const { tail } = this.#state;
    return Math.max(0, bytesAfter(this.#state, from) - offsetsIn(holes, from, tail));
  }

  /** Where what is not on disk begins for this reader. */
  #from({ delivered }: StreamCursor): number {
    return Math.max(delivered, this.#log?.end ?? 0);
  }

  #stored({ delivered, holes }: StreamCursor): Amount {
    const log = this.#log;
    if (log === undefined || delivered >= log.end) return { bytes: 0, messages: 0 };
    const amount = { ...log.after(delivered) };
    for (const { from, to } of holes) {
      if (from >= log.end) continue;
      const first = log.after(Math.max(from, delivered));
      const after = log.after(to);
      amount.bytes -= first.bytes - after.bytes;
      amount.messages -= first.messages - after.messages;
    }
    return amount;
  }

  /** Age of the oldest message that this reader has not got. */
  #seconds(cursor: StreamCursor): number {
    const offset = cursor.holeAt(cursor.delivered)?.to ?? cursor.delivered;
    const ms = this.#cameAtMs(cursor, offset);
    return ms === undefined ? NaN : Math.max(0, wallClockMs() - ms) / 1000;
  }

  /** When the bytes from this offset on came; ms since 1970. */
  #cameAtMs(cursor: StreamCursor, offset: number): number | undefined {
    const { blocks, missing } = this.#state;
    const known = this.#cameAt.get(cursor);
    if (known?.offset === offset) return known.ms;
    const isStored = offset < (this.#log?.end ?? 0);
    const gap = missing.find(({ from, to }) => from <= offset && offset < to);
    const block = blocks.at(isStored ? offset : gap?.to ?? offset);
    const ms = block !== undefined
      ? performance.timeOrigin + block.sinceMs
      : isStored
      ? this.#log!.storedAtMs(offset)
      : undefined;
    const found = { offset, ms };
    // Also for the time when the batches of its segment are not known any more.
    if (isStored || block !== undefined) this.#cameAt.set(cursor, found);
    if (isStored && ms === undefined) void this.#lookUp(offset, found);
    return ms;
  }

  /** A reader that is away stays where it is: so this is done once. */
  async #lookUp(offset: number, found: { ms: number | undefined }): Promise<void> {
    try {
      found.ms = (await this.#log!.read(offset))?.storedAtMs;
    } catch {
      // Whoever needs its messages is told.
    }
  }
}
