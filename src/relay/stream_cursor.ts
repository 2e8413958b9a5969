/** How far one reader has come in a stream. Offsets count the stream's bytes. */
import type { Cursor, Log } from "../queue/queue.ts";
import { ReadAhead } from "./read_ahead.ts";

/** Bytes that a reader does not get. */
export interface Hole {
  from: number;
  to: number;
}

/** What a cursor needs to know of its reader's connection. */
export interface CursorConnection {
  /** Since when the kernel accepts no more bytes; ms of `performance.now()`, undefined: it does. */
  readonly blockedSince: number | undefined;
}

/** How long a reader that comes for the first time may take until its name is recorded; ms. */
const EXPECTED_MS = 1000;

export class StreamCursor {
  readonly name: string;
  /** As it is recorded on disk; absent without a queue, and until then. */
  stored: Cursor | undefined;
  /** Everything before it is delivered, or is not for this reader. */
  delivered: number;
  /** The kernel has accepted everything before it on the current connection. */
  sent: number;
  /** Bytes of the write in progress. */
  inFlight = 0;
  /** Its next bytes come from the disk, or are on their way there. */
  behind = false;
  /** Messages that are dropped for this reader alone, in order; all after `sent`. */
  readonly holes: Hole[] = [];
  /** Messages dropped: by the policy, by a full queue, or because the reader was not connected. */
  dropped = 0;
  /** Of these, messages that were dropped while it was not connected. */
  droppedWhileAbsent = 0;
  /** How often bytes were missing for it. */
  gaps = 0;
  /** What had been delivered to it when it fell behind. */
  behindFrom = 0;
  /** It is about to connect for the first time, until then; ms of `performance.now()`. */
  #expectedUntilMs = -Infinity;
  #connection: CursorConnection | undefined;
  #readAhead: ReadAhead | undefined;
  /** The highest offset that may have been sent to it on earlier connections. */
  #offered: number;

  /** `offered`: what an earlier process may have sent. */
  constructor(name: string, offset: number, stored: Cursor | undefined, offered: number) {
    this.name = name;
    this.stored = stored;
    this.delivered = this.sent = offset;
    this.#offered = offered;
  }

  get connected(): boolean {
    return this.#connection !== undefined;
  }

  /** It comes for the first time, and is connected in a moment: it is not yet one that is away. */
  expect(): void {
    this.#expectedUntilMs = performance.now() + EXPECTED_MS;
  }

  get isExpected(): boolean {
    return !this.connected && performance.now() < this.#expectedUntilMs;
  }

  /** It is not connected, or its kernel accepts no more bytes. */
  get isStuck(): boolean {
    return this.#connection === undefined || this.#connection.blockedSince !== undefined;
  }

  /** The highest offset that may have been sent to it: it cannot have more. */
  get offered(): number {
    return Math.max(this.#offered, this.sent + this.inFlight);
  }

  /** Reads its part of the log; only while it is connected. */
  get readAhead(): ReadAhead | undefined {
    return this.#readAhead;
  }

  /** A connection begins at this offset. */
  begin(connection: CursorConnection, at: number, log: Log | undefined): void {
    this.#offered = this.offered;
    this.#connection = connection;
    this.#readAhead = log === undefined ? undefined : new ReadAhead(log);
    this.sent = at;
    this.passHoles(at);
  }

  /** The connection has ended: the next one begins at the first byte that is not delivered. */
  end(): void {
    this.#offered = this.offered;
    this.#connection = undefined;
    this.#expectedUntilMs = -Infinity;
    this.#readAhead?.stop();
    this.#readAhead = undefined;
    this.inFlight = 0;
    this.sent = this.delivered;
  }

  /** Messages from `from` to `to` are not for this reader; after all that were dropped before. */
  drop(from: number, to: number, messages: number): void {
    this.dropped += messages;
    if (!this.connected) this.droppedWhileAbsent += messages;
    const last = this.holes.at(-1);
    if (last !== undefined && last.to === from) last.to = to;
    else this.holes.push({ from, to });
  }

  /** The hole that begins at or before `offset`, and ends after it. */
  holeAt(offset: number): Hole | undefined {
    if (this.holes.length === 0) return undefined;
    return this.holes.find(({ from, to }) => from <= offset && offset < to);
  }

  /** Where the next hole after `offset` begins. */
  holeAfter(offset: number): number {
    if (this.holes.length === 0) return Infinity;
    return this.holes.find(({ from }) => from > offset)?.from ?? Infinity;
  }

  /** Forgets holes that end at or before `offset`. */
  passHoles(offset: number): void {
    while ((this.holes[0]?.to ?? Infinity) <= offset) this.holes.shift();
  }

  /** Whether it needs any byte from `from` to `to`. */
  needs(from: number, to: number): boolean {
    const first = Math.max(from, this.delivered);
    return (this.holeAt(first)?.to ?? first) < to;
  }
}
