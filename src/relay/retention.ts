/**
 * Decides what of a stream is stored on disk, what memory is freed, and whether the source has to wait.
 */
import type { Block } from "./blocks.ts";
import { Gate } from "./gate.ts";
import { LONGEST_WRITE } from "../message/message.ts";
import { bytesAfter, type Lag } from "./lag.ts";
import type { Spiller } from "./spiller.ts";
import type { StreamCursor } from "./stream_cursor.ts";
import type { StreamOptions, StreamState } from "./stream_options.ts";

/** A reader that has not acknowledged this share of the memory is served from disk. */
const UNACKED_SHARE = 1 / 4;
/** Bytes on disk are kept in memory, too, for readers that are behind by no more than this share. */
const NEAR_SHARE = 1 / 4;
/** Bytes above the high watermark that may wait for the disk before the source does. */
const DISK_LAG = 16 << 20;
/** With more readers, a source that waits is let on at the next tick, not at once. */
const FEW_CURSORS = 64;

export class Retention {
  readonly #options: StreamOptions;
  readonly #state: StreamState;
  readonly #spiller: Spiller | undefined;
  readonly #lag: Lag;
  readonly #gate: Gate = new Gate(() => this.#hasRoom());
  /** A reader is connected, and is not behind. */
  #anyNear = false;
  /** Readers that are behind. */
  #behind = 0;
  #finishing = false;

  constructor(
    options: StreamOptions,
    state: StreamState,
    spiller: Spiller | undefined,
    lag: Lag,
  ) {
    this.#lag = lag;
    this.#options = options;
    this.#state = state;
    this.#spiller = spiller;
  }

  /** Where the source has to wait, a promise. To be called when messages have come. */
  room(): void | Promise<void> {
    if (this.#gate.free) return;
    this.review();
    if (this.#gate.free) return;
    this.#options.memory.notify(this.#gate);
    return this.#gate.wait();
  }

  /** The source waits no more: the server is ending. */
  unblock(): void {
    this.#gate.open();
  }

  /** The source has ended: what readers have not got goes to disk, and stays there. */
  finish(): void {
    this.#finishing = true;
  }

  /** This reader is removed. */
  remove(cursor: StreamCursor): void {
    if (cursor.behind) this.#behind--;
    this.review();
  }

  /** Whether the source may go on. */
  #hasRoom(): boolean {
    const { policy, bound, memory, whenFull } = this.#options;
    const drops = policy.drops !== undefined || !policy.keepsForAbsentReaders ||
      (whenFull === "drop-newest" && this.#spiller?.full !== undefined);
    if (memory.used > memory.limit && !drops) return false;
    if (this.#spiller?.on && !drops && !this.#anyNear && this.#unstored > this.#mostUnstored) {
      return false;
    }
    if (!policy.makesSourceWait) return true;
    const most = Math.max(bound, LONGEST_WRITE);
    if (this.#state.blocks.bytes <= most) return true;
    for (const { sent } of this.#state.cursors) if (this.#state.tail - sent > most) return false;
    return true;
  }

  /** Bytes that only memory has. */
  get #unstored(): number {
    return this.#state.tail -
      Math.max(this.#storedEnd, this.#state.blocks.first?.offset ?? this.#state.tail);
  }

  /** What a kill may destroy, while no reader keeps up that would have to wait; bytes. */
  get #mostUnstored(): number {
    return this.#options.bound + (this.#spiller?.full === undefined ? DISK_LAG : LONGEST_WRITE);
  }

  get #storedEnd(): number {
    return this.#options.log?.end ?? 0;
  }

  /** A reader has come further. */
  progress(): void {
    if (this.#gate.isWaitedFor && this.#state.cursors.size <= FEW_CURSORS) this.review();
  }

  /**
   * Decides which readers are served from disk, and frees memory. To be called once a tick, and when
   * much has changed.
   */
  review(): void {
    const { memory, policy, durable } = this.#options;
    const spiller = this.#spiller;
    /** All that no reader needs any more. */
    let needed = this.#state.tail;
    /** What no reader will be sent from memory. */
    let near = this.#state.tail;
    let holes = false;
    this.#anyNear = false;
    for (const cursor of this.#state.cursors) {
      const { connected, sent } = cursor;
      if (!connected && !policy.keepsForAbsentReaders) continue;
      if (spiller !== undefined) this.#decide(cursor);
      needed = Math.min(needed, policy.keepsForAbsentReaders ? cursor.delivered : sent);
      if (connected && this.#isNear(sent)) near = Math.min(near, sent);
      holes ||= cursor.holes.length > 0;
      this.#anyNear ||= connected && !cursor.behind;
    }
    if (spiller !== undefined) {
      const pressed = memory.used > memory.limit / 2;
      if (this.#behind > 0 || durable || pressed) spiller.start();
      else if (!this.#finishing && memory.used <= memory.limit / 4) spiller.stop();
      needed = Math.max(needed, Math.min(this.#storedEnd, pressed ? this.#state.tail : near));
    }
    this.#state.blocks.release(needed);
    if (holes) this.#state.blocks.keep((block) => this.#isNeeded(block));
    this.#gate.recheck();
  }

  /**
   * Whether a reader's next bytes are kept in memory though they are on disk: it may have paused only for
   * a moment.
   */
  #isNear(sent: number): boolean {
    const { bound, memory } = this.#options;
    return sent >= (this.#state.blocks.first?.offset ?? Infinity) &&
      this.#state.tail - sent <= bound + memory.limit * NEAR_SHARE;
  }

  #isNeeded({ offset, end }: Block): boolean {
    for (const cursor of this.#state.cursors) if (cursor.needs(offset, end)) return true;
    return false;
  }

  /** Whether a reader is served from disk. */
  #decide(cursor: StreamCursor): void {
    const { bound, resumeBelow, memory, onEvent } = this.#options;
    const { connected, sent, delivered } = cursor;
    const most = memory.limit * UNACKED_SHARE;
    const ahead = bytesAfter(this.#state, sent);
    const unacked = bytesAfter(this.#state, delivered);
    if (!cursor.behind) {
      if (cursor.isExpected && unacked <= bound) return;
      if (connected ? ahead <= bound && unacked <= most : unacked <= 0) return;
      cursor.behind = true;
      cursor.behindFrom = delivered;
      this.#behind++;
      const why = connected ? "backlog" : "absent";
      onEvent({ event: "spilling", why, backlog: this.#lag.bytes(cursor) }, cursor);
    } else if (connected && ahead <= resumeBelow && unacked <= most && !this.#finishing) {
      cursor.behind = false;
      this.#behind--;
      cursor.readAhead?.stop();
      const spilled = Math.max(0, this.#storedEnd - cursor.behindFrom);
      onEvent({ event: "caught-up", spilled }, cursor);
    }
  }
}
