/** Reports the bytes that readers do not get: adjacent gaps as one. */
import type { StreamCursor } from "./stream_cursor.ts";
import type { StreamEvent } from "./stream_event.ts";

export type Gap = Omit<StreamEvent & { event: "gap" }, "event">;

/** A gap that grows is reported this often; ms. */
const REPORT_EVERY_MS = 1000;

export class Gaps {
  readonly #onGap: (gap: Gap, cursor: StreamCursor) => void;
  /** Not reported yet, and since when; ms of `performance.now()`. */
  readonly #unreported = new Map<StreamCursor, { gap: Gap; sinceMs: number }>();

  constructor(onGap: (gap: Gap, cursor: StreamCursor) => void) {
    this.#onGap = onGap;
  }

  /** This reader does not get these bytes. While a queue is full, a gap can grow with each message. */
  add(cursor: StreamCursor, gap: Gap): void {
    const unreported = this.#unreported.get(cursor);
    if (unreported !== undefined && continues(unreported.gap, gap)) {
      unreported.gap.to = gap.to;
      return;
    }
    this.report(cursor);
    this.#unreported.set(cursor, { gap: { ...gap }, sinceMs: performance.now() });
  }

  /** Reports this reader's gap, if there is one: it grows no more. */
  report(cursor: StreamCursor): void {
    if (this.#unreported.size === 0) return;
    const unreported = this.#unreported.get(cursor);
    if (unreported === undefined) return;
    this.#unreported.delete(cursor);
    cursor.gaps++;
    this.#onGap(unreported.gap, cursor);
  }

  /** Reports all gaps. */
  reportAll(): void {
    for (const cursor of [...this.#unreported.keys()]) this.report(cursor);
  }

  /** Reports those that have grown for long enough. To be called once a tick. */
  review(): void {
    if (this.#unreported.size === 0) return;
    const due = performance.now() - REPORT_EVERY_MS;
    for (const [cursor, { sinceMs }] of [...this.#unreported]) {
      if (sinceMs <= due) this.report(cursor);
    }
  }
}

const continues = (one: Gap, next: Gap): boolean =>
  one.to === next.from && one.why === next.why && one.atMost === next.atMost;
