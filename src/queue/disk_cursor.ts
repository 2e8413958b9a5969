/** How far a reader has come in a log on disk. */
import { type Cursor, QueueError } from "./queue.ts";

/** What a cursor asks of its log. */
export interface CursorLog {
  /** Records the cursor, soon. */
  putCursor(cursor: DiskCursor): void;
  /** Resolves once all that was put is durable. */
  recorded(): Promise<void>;
  forget(name: string): Promise<void>;
}

export class DiskCursor implements Cursor {
  readonly name: string;
  offset: number;
  durable: number;
  acknowledges: boolean;
  /** It is in the database: it is still known after a kill. */
  recorded: boolean;
  readonly #log: CursorLog;

  constructor(
    log: CursorLog,
    name: string,
    offset: number,
    acknowledges: boolean,
    recorded: boolean,
  ) {
    this.#log = log;
    this.name = name;
    this.offset = this.durable = offset;
    this.acknowledges = acknowledges;
    this.recorded = recorded;
  }

  release(offset: number): void {
    if (offset <= this.offset) return;
    this.offset = offset;
    this.#log.putCursor(this);
  }

  async seek(offset: number): Promise<void> {
    this.offset = offset;
    // From now on nothing is deleted that it needs.
    this.durable = Math.min(this.durable, offset);
    this.#log.putCursor(this);
    await this.#log.recorded();
    // One that was moved back meanwhile needs more.
    this.durable = Math.min(offset, this.offset);
  }

  async setAcknowledges(): Promise<void> {
    if (this.acknowledges) return;
    this.acknowledges = true;
    this.#log.putCursor(this);
    await this.#log.recorded();
  }

  forget(): Promise<void> {
    return this.#log.forget(this.name);
  }
}

/** Names and keys are printed: no control characters. */
const NAME = /^[^\p{Cc}]{0,200}$/u;

/** Throws a QueueError for what cannot be the name of a reader, or the key of a log. */
export function checkName(name: string): void {
  if (NAME.test(name)) return;
  const rule = "must be one line of 1 to 200 characters";
  throw new QueueError(`the reader's name ${JSON.stringify(name.slice(0, 60))} ${rule}`);
}
