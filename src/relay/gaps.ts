/** Tells of the bytes that readers do not get: of gaps that follow each other as one. */
import type { StreamCursor } from "./stream_cursor.ts";
import type { StreamEvent } from "./stream_event.ts";

export type Gap = Omit<StreamEvent & { event: "gap" }, "event">;

/** A gap that grows is told of this often; ms. */
const TELL_EVERY_MS = 1000;

export class Gaps {
  readonly #onGap: (gap: Gap, cursor: StreamCursor) => void;
  /** Not told yet, and since when; ms of `performance.now()`. */
  readonly #untold = new Map<StreamCursor, { gap: Gap; sinceMs: number }>();

  constructor(onGap: (gap: Gap, cursor: StreamCursor) => void) {
    this.#onGap = onGap;
  }

  /** This reader does not get these bytes. While a queue is full, a gap can grow with each message. */
  add(cursor: StreamCursor, gap: Gap): void {
    const untold = this.#untold.get(cursor);
    if (untold !== undefined && continues(untold.gap, gap)) {
      untold.gap.to = gap.to;
      return;
    }
    this.tell(cursor);
    this.#untold.set(cursor, { gap: { ...gap }, sinceMs: performance.now() });
  }

  /** Tells of this reader's gap, if there is one: it grows no more. */
  tell(cursor: StreamCursor): void {
    if (this.#untold.size === 0) return;
    const untold = this.#untold.get(cursor);
    if (untold === undefined) return;
    this.#untold.delete(cursor);
    cursor.gaps++;
    this.#onGap(untold.gap, cursor);
  }

  /** Tells of all gaps. */
  tellAll(): void {
    for (const cursor of [...this.#untold.keys()]) this.tell(cursor);
  }

  /** Tells of those that have grown for long enough. To be called once a tick. */
  review(): void {
    if (this.#untold.size === 0) return;
    const due = performance.now() - TELL_EVERY_MS;
    for (const [cursor, { sinceMs }] of [...this.#untold]) if (sinceMs <= due) this.tell(cursor);
  }
}

const continues = (one: Gap, next: Gap): boolean =>
  one.to === next.from && one.why === next.why && one.atMost === next.atMost;
