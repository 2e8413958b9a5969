/** Progress on standard error: a live line on a terminal, plain lines when piped. */
import process from "node:process";

/** Erases to the end of the line (ECMA-48 EL). */
const CLEAR = "\r\x1b[K";

export class ProgressLine {
  readonly #live = process.stderr.isTTY === true;
  #shown = false;

  /** What goes on now: shown on a terminal only, until the next thing is said. */
  update(text: string): void {
    if (!this.#live) return;
    const width = process.stderr.columns ?? 80;
    process.stderr.write(CLEAR + text.slice(0, width - 1));
    this.#shown = true;
  }

  /** Something that happened: stays. */
  line(text: string): void {
    this.end();
    process.stderr.write(`${text}\n`);
  }

  /** Takes the live line away. */
  end(): void {
    if (this.#shown) process.stderr.write(CLEAR);
    this.#shown = false;
  }
}
