/** The events of a stream. */

/** What happens to new messages that a full queue cannot store. */
export type WhenFull = "block" | "drop-newest" | "drop-oldest";

/**
 * Why a reader does not get some bytes. `drop`: the overflow policy dropped them; `drop-newest` and
 * `drop-oldest`: the queue was full; `retain`: they were too old; `damage`: they are damaged on disk;
 * `killed`: they were only in the memory of a server that was killed; `source`: the source lost them;
 * `repair`: these are offsets that `queue repair` has skipped, as it cannot know whether they were used:
 * perhaps nothing was lost.
 */
export type GapWhy =
  | "drop"
  | "drop-newest"
  | "drop-oldest"
  | "retain"
  | "damage"
  | "killed"
  | "source"
  | "repair";

export type StreamEvent =
  /** From now on the reader's messages are stored on disk; bytes of its backlog. `absent`: it is not connected. */
  | { event: "spilling"; why: "absent" | "backlog"; backlog: number }
  /** The reader is served from memory again; bytes of its backlog that were on disk since `spilling`. */
  | { event: "caught-up"; spilled: number }
  /** The queue accepts no more: `max`, its own limit is reached; `disk`, the disk is full. */
  | { event: "queue-full"; why: "max" | "disk"; then: WhenFull }
  /** The queue accepts messages again; `dropped` messages were lost in between. */
  | { event: "queue-room"; dropped: number }
  /**
   * Bytes that the reader does not get. `why`: where it is known; `atMost`: perhaps fewer were lost.
   */
  | { event: "gap"; from: number; to: number; why?: GapWhy; atMost?: true };
