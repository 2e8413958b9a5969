/** Progress on standard error: one line that is updated in place on a terminal, else plain lines. */
import process from "node:process";

/** Erases to the end of the line (ECMA-48 EL). */
const CLEAR = "\r\x1b[K";

export class ProgressLine {
  readonly #live = process.stderr.isTTY === true;
  #shown = false;

  /** Replaces the current line with `text`. Does nothing when standard error is not a terminal. */
  update(text: string): void {
    if (!this.#live) return;
    const width = process.stderr.columns ?? 80;
    process.stderr.write(CLEAR + text.slice(0, width - 1));
    this.#shown = true;
  }

  /** Prints a line that remains visible, above the current line. */
  line(text: string): void {
    this.end();
    process.stderr.write(`${text}\n`);
  }

  /** Erases the current line. */
  end(): void {
    if (this.#shown) process.stderr.write(CLEAR);
    this.#shown = false;
  }
}
