/** What a source does with a message that is too long for its frame. */
import type { FrameError } from "../message/framer.ts";
import type { Skipping } from "../message/reassembly.ts";
import type { OnBadFrame, Sink } from "./source.ts";

/** All of them, for the command line. */
export const ON_BAD_FRAME: readonly OnBadFrame[] = ["stop", "skip", "reconnect"];

/** Shortest time between two events of skipped messages: there may be millions of them. */
const NOTE_EVERY_MS = 1000;

/** Counts the bad messages of a source, and tells of them. */
export class BadFrames {
  readonly then: OnBadFrame;
  readonly #note: Sink["note"];
  #count = 0;
  /** The last one that was not reported yet. */
  #unreported: FrameError | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(then: OnBadFrame, note: Sink["note"]) {
    this.then = then;
    this.#note = note;
  }

  /** What a `Reassembly` needs for `skip`; undefined for the others. `skipped`: see there. */
  skipping(skipped: (bytes: number) => void): Skipping | undefined {
    if (this.then !== "skip") return undefined;
    return {
      found: (error) => {
        this.#count++;
        this.#unreported = error;
        if (this.#timer === undefined) this.#tell();
      },
      skipped,
    };
  }

  /** Tells of the message that ended the stream or the connection. */
  ended(error: FrameError): void {
    this.#count++;
    this.#unreported = error;
    this.#tell();
  }

  /** No more follow. */
  close(): void {
    if (this.#unreported !== undefined) this.#tell();
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #tell(): void {
    const { then } = this;
    const reason = this.#unreported!.message;
    this.#unreported = undefined;
    this.#note({ event: "bad-frame", then, count: this.#count, reason });
    if (then !== "skip") return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      if (this.#unreported !== undefined) this.#tell();
    }, NOTE_EVERY_MS);
  }
}
