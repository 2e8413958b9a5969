/** The options of a stream, and what its parts share. */
import type { Blocks } from "./blocks.ts";
import type { MemoryBudget } from "./memory_budget.ts";
import type { Log } from "../queue/queue.ts";
import type { OverflowPolicy } from "../send/overflow.ts";
import type { Hole, StreamCursor } from "./stream_cursor.ts";
import type { StreamEvent, WhenFull } from "./stream_event.ts";

export interface StreamOptions {
  /** Where the stream is stored; absent: only in memory. */
  log?: Log | undefined;
  /** The source can resume at a position after a restart. */
  replayable: boolean;
  /** There is no source: what is gone does not come again. */
  sourceless?: boolean;
  policy: OverflowPolicy;
  /** High watermark: the backlog above which a reader is served from disk, or the policy acts; bytes. */
  bound: number;
  /** Low watermark: the backlog at which a reader is served from memory again; bytes. */
  resumeBelow: number;
  whenFull: WhenFull;
  /** Every message is stored before it is delivered. */
  durable: boolean;
  memory: MemoryBudget;
  /** Start of the message that contains byte `offset`; `bytes` begin at a message's start. */
  floor: (bytes: Uint8Array, offset: number) => number;
  /** `cursor`: of the reader that it is about; absent: of all. */
  onEvent: (event: StreamEvent, cursor?: StreamCursor) => void;
  /** There may be something new to send. */
  onNew: () => void;
  /** `safePosition` may have advanced. */
  onSafe: () => void;
  /** The queue failed and cannot be used any more. */
  onError: (error: Error) => void;
}

/** What the parts of a stream share. */
export interface StreamState {
  /** End of the stream. */
  tail: number;
  /** The newest part, in memory. */
  readonly blocks: Blocks;
  /** All readers. */
  readonly cursors: Set<StreamCursor>;
  /** Offsets that nothing has, neither memory nor the disk, in order. Those before what is stored may be left out. */
  missing: Hole[];
}
