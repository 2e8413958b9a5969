/** A log file with the content of the article's server.log. */
import { closeSync, openSync, writeSync } from "node:fs";
import type { ServeEvent } from "../relay/serve_event.ts";
import { formatCount } from "../text/units.ts";
import { closedLine, overflowLine } from "./server_events.ts";

/** Up to this many messages a second each is logged; above it, one every `SAMPLE_MS`. */
const LOG_EACH_UP_TO = 1000;
const SAMPLE_MS = 100;

/** Logs the number of each message sent, overflows, and how each connection ended. */
export class Log {
  /** How often the server has to report `sent` events; ms. */
  readonly everyMs: number;
  readonly #fd: number;
  readonly #sent = new Map<number, number>();

  /** `rate`: messages a second; undefined: nobody knows. Throws an Error if the file cannot be written. */
  constructor(file: string, rate: number | undefined) {
    const each = rate !== undefined && rate <= LOG_EACH_UP_TO;
    this.everyMs = each ? 1 : SAMPLE_MS;
    try {
      this.#fd = openSync(file, "a");
    } catch (error) {
      throw new Error(`cannot write the log ${file}: ${(error as Error).message}`, {
        cause: error,
      });
    }
    const pace = rate === undefined
      ? "as the source sends them"
      : rate === Infinity
      ? "as fast as possible"
      : `at ${formatCount(rate)}/s`;
    this.#line(
      each
        ? `messages ${pace}: each is logged`
        : `messages ${pace}: one is logged every ${SAMPLE_MS} ms`,
    );
  }

  write(event: ServeEvent): void {
    switch (event.event) {
      case "sent": {
        const last = this.#sent.get(event.reader) ?? 0;
        this.#sent.set(event.reader, event.messages);
        const each = this.everyMs === 1;
        for (let n = each ? last + 1 : event.messages; n <= event.messages; n++) {
          this.#line(`reader ${event.reader}: sent message ${n}`);
        }
        return;
      }
      case "overflow":
        return this.#line(`reader ${event.reader}: ${overflowLine(event)}`);
      case "closed":
        return this.#line(
          `reader ${event.reader}: ${closedLine(event)} after ${event.messages} messages`,
        );
    }
  }

  #line(text: string): void {
    writeSync(this.#fd, `${new Date().toISOString()} ${text}\n`);
  }

  close(): void {
    closeSync(this.#fd);
  }
}
