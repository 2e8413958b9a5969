/**
 * How much may lie unread at a reader. A reader that reads everything that has arrived before it processes any
 * of it gets slower the more that is, and may never catch up with a stream that has no gap. So it is sent a
 * quantum, and the next one only after it has read all of that.
 */
import { setImmediate } from "node:timers";
import { setNoDelay } from "../kernel/socket_calls.ts";
import type { Connection } from "../net/net.ts";
import { QuantumSearch } from "./quantum.ts";
import { AckView, ReadView, seesReader, type UnreadView } from "./unread_view.ts";

/** Bytes, or `auto`: as much as the reader takes without getting slower. */
export type Unread = number | "auto";

/**
 * So many readers are looked at in each turn of the event loop around the time at which they should have read
 * all, in this part of the time that they usually need. The others are looked at at each tick.
 */
const CLOSELY = { most: 4, from: 0.8, until: 1.5 };
const TICK_MS = 1;
/**
 * A reader that leaves a rest for so long, without reading anything of it, may wait for more: it gets more.
 * Milliseconds; the time, and with `auto` what it gets, doubles with each repetition.
 */
const STUCK_MS = 1000;
/**
 * It had waited for more if it goes on reading so soon after it got that, and reads all of it at this share of its
 * usual rate. One that was stopped goes on at another time. Milliseconds.
 */
const WAITED = { ms: 50, share: 0.5 };
/** One that takes less than this share of its usual rate for so long is reported. */
const HELD = { share: 0.25, ms: 300 };

/** What happens to a reader that has nearly stopped. */
export type UnreadEvent =
  /** Nothing is sent to it until it has read the `unread` bytes. Rates in bytes a second. */
  | { event: "held"; unread: number; rate: number; usual: number }
  /** It has read them, after so many seconds. */
  | { event: "released"; seconds: number };

export interface UnreadOptions {
  unread: Unread;
  view: UnreadView;
  /** Called in a tick, when there is room again. */
  wake: () => void;
  onEvent?: (event: UnreadEvent) => void;
  /** For tests: the clock in ms, what is called in the next turn, and how many readers are looked at closely. */
  now?: () => number;
  soon?: (look: () => void) => void;
  looks?: { close: number };
}

/** Readers that are looked at closely now, of all gates. */
const LOOKS = { close: 0 };

/** Decides how much a reader may be sent now. One for each connection. */
export class UnreadGate {
  readonly #options: UnreadOptions;
  readonly #view: UnreadView;
  readonly #auto: boolean;
  readonly #search: QuantumSearch;
  /** Sent since the reader was last seen to have read everything. */
  #sent = 0;
  #startMs: number;
  readonly #now: () => number;
  readonly #soon: (look: () => void) => void;
  readonly #looks: { close: number };
  /** There was always something to send since then. */
  #saturated = true;
  /** Since when it is not sent anything; undefined: it may be. */
  #waitsSinceMs: number | undefined;
  /** For a reader that leaves a rest. */
  readonly #stuck = { unread: Infinity, sinceMs: 0, times: 0, toppedMs: -Infinity };
  /** How often it was sent more in this wait. */
  #tops = 0;
  /** What it had when it went on reading after that, and since when it reads. */
  #waitedFor: { bytes: number; sinceMs: number } | undefined;
  /** What was unread when it was first seen to wait. */
  #unreadThen = Infinity;
  #held = false;
  /** Since when it has read everything; undefined: it has not. */
  #emptyMs: number | undefined;
  /** It is looked at in each turn of the event loop. */
  #isClose = false;
  /** It was so for the present quantum. */
  #wasClose = false;

  constructor(options: UnreadOptions) {
    const { unread, view, now = () => performance.now() } = options;
    this.#now = now;
    this.#soon = options.soon ?? setImmediate;
    this.#looks = options.looks ?? LOOKS;
    this.#startMs = now();
    this.#options = options;
    this.#auto = unread === "auto";
    this.#search = new QuantumSearch(unread === "auto" ? undefined : unread);
    this.#view = view;
  }

  /** What is sent at once has to end with a message. */
  get wholeMessages(): boolean {
    return this.#view.byAcknowledgement;
  }

  /** How much may be sent before all of it must have been read; bytes. */
  get quantum(): number {
    return this.#search.size;
  }

  /** Bytes that may be sent now; 0: none before `wake` is called. */
  room(): number {
    if (this.#waitsSinceMs !== undefined) return 0;
    // Before the write: it may return only after the reader has read all of it.
    if (this.#sent === 0) this.#startMs = this.#now();
    if (this.#sent < this.quantum) return this.quantum - this.#sent;
    const nowMs = this.#now();
    if (this.#view.unread() === 0 && this.#search.pauseMs === 0) {
      this.#next(nowMs, nowMs);
      return this.quantum;
    }
    this.#waitsSinceMs = nowMs;
    this.#unreadThen = Infinity;
    this.#comeClose(nowMs);
    return 0;
  }

  /** The kernel took so many bytes. */
  took(bytes: number): void {
    this.#sent += bytes;
    this.#view.took(bytes);
  }

  /** There is nothing to send: what the reader takes now is not what it could take. */
  idle(): void {
    this.#saturated = false;
  }

  /** Since when nothing is sent because of what is unread; undefined: it may be. */
  get waitsSinceMs(): number | undefined {
    return this.#waitsSinceMs;
  }

  /** Called at each tick. */
  tick(nowMs: number): void {
    if (this.#waitsSinceMs === undefined) return;
    const unread = this.#view.unread();
    if (unread === 0) {
      this.#emptyMs ??= nowMs;
      if (nowMs < this.#emptyMs + this.#search.pauseMs) return;
      this.#next(nowMs, this.#emptyMs);
      this.#options.wake();
      return;
    }
    this.#comeClose(nowMs);
    if (this.#unreadThen === Infinity) this.#unreadThen = unread;
    const stuck = this.#stuck;
    if (unread < stuck.unread) {
      if (nowMs - stuck.toppedMs < WAITED.ms) {
        this.#waitedFor = { bytes: stuck.unread, sinceMs: nowMs };
      }
      stuck.sinceMs = nowMs;
      stuck.times = 0;
      this.#watch(nowMs, unread);
    }
    stuck.unread = unread;
    if (nowMs - stuck.sinceMs > STUCK_MS * 2 ** stuck.times) this.#top(nowMs, unread);
  }

  /** Looks in each turn from now on, if the reader should have read everything soon. */
  #comeClose(nowMs: number): void {
    const tookMs = nowMs - this.#startMs;
    const { most, from, until } = CLOSELY;
    const { usualMs } = this.#search;
    if (this.#isClose || this.#looks.close >= most || usualMs === 0) return;
    if (this.#view.byAcknowledgement) return;
    if (tookMs + TICK_MS < from * usualMs) return;
    const untilMs = this.#startMs + until * usualMs + TICK_MS;
    if (nowMs >= untilMs) return;
    this.#looks.close++;
    this.#isClose = this.#wasClose = true;
    const look = () => {
      const now = this.#now();
      if (this.#waitsSinceMs !== undefined && now < untilMs) {
        if (this.#view.unread() > 0) return this.#soon(look);
        this.#emptyMs ??= now;
        if (this.#search.pauseMs === 0) {
          this.#next(now, this.#emptyMs);
          this.#options.wake();
        }
      }
      this.#looks.close--;
      this.#isClose = false;
    };
    this.#soon(look);
  }

  /** The reader has read everything, since `emptyMs`: the next quantum may be sent. */
  #next(nowMs: number, emptyMs: number): void {
    if (this.#held) {
      this.#held = false;
      const seconds = (nowMs - this.#waitsSinceMs!) / 1000;
      this.#options.onEvent?.({ event: "released", seconds });
    }
    if (this.#waitedFor !== undefined) this.#learn(this.#waitedFor, nowMs);
    if (this.#saturated && this.#sent > 0) {
      const noticed = this.#view.byAcknowledgement
        ? "by-acknowledgement"
        : this.#wasClose
        ? "closely"
        : "by-ticks";
      this.#search.measure(this.#sent, emptyMs - this.#startMs, noticed);
    }
    this.#sent = 0;
    this.#emptyMs = undefined;
    this.#startMs = nowMs;
    this.#saturated = true;
    this.#wasClose = false;
    this.#stuck.unread = Infinity;
    this.#stuck.times = this.#tops = 0;
    this.#waitedFor = undefined;
    this.#waitsSinceMs = undefined;
  }

  /** It reads nothing of what it has: perhaps it waits for more. */
  #top(nowMs: number, unread: number): void {
    this.#sent = this.#auto ? this.quantum * (1 - 2 ** this.#tops) : unread;
    this.#stuck.sinceMs = this.#stuck.toppedMs = nowMs;
    this.#stuck.times++;
    this.#tops++;
    this.#saturated = false;
    if (this.#sent >= this.quantum) return;
    this.#waitsSinceMs = undefined;
    this.#options.wake();
  }

  /** It has read all, after it had waited for more: was it because of that, or was it stopped meanwhile? */
  #learn({ bytes, sinceMs }: { bytes: number; sinceMs: number }, nowMs: number): void {
    const rate = bytes / Math.max(TICK_MS, nowMs - sinceMs) * 1000;
    if (rate >= WAITED.share * this.#search.rate) this.#search.grow(bytes);
  }

  /** It reads, but far less than usual. */
  #watch(nowMs: number, unread: number): void {
    const ms = nowMs - this.#waitsSinceMs!;
    if (this.#held || ms < HELD.ms) return;
    const rate = Math.max(0, this.#unreadThen - unread) / ms * 1000;
    const usual = this.#search.rate;
    if (rate > HELD.share * usual) return;
    this.#held = true;
    this.#options.onEvent?.({ event: "held", unread, rate, usual });
  }
}

export interface GateOptions {
  connection: Connection;
  unread: Unread;
  /** Bytes that were written on the connection before. */
  written?: number;
  /** Of a reader that acknowledges what it has handled: what it was sent and has acknowledged. */
  acknowledges?: { readonly sent: number; readonly delivered: number } | undefined;
  /** Called in a tick, when there is room again. */
  wake: () => void;
  onEvent?: (event: UnreadEvent) => void;
}

/**
 * For a reader on this host, or one that acknowledges. Undefined for another: its window hides more than some
 * readers bear, and its kernel does not tell when it opens again a little.
 */
export function openGate(
  { connection, unread, written = 0, acknowledges, wake, onEvent }: GateOptions,
): UnreadGate | undefined {
  let view: UnreadView;
  if (seesReader(connection)) view = new ReadView(connection, written);
  else if (acknowledges !== undefined) view = new AckView(acknowledges);
  else return undefined;
  // A quantum has an end, and the reader must have it before it gets the next one.
  if (connection.fd !== undefined) setNoDelay(connection.fd);
  return new UnreadGate({ unread, view, wake, ...(onEvent === undefined ? {} : { onEvent }) });
}
