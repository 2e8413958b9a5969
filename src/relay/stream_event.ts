/** The events of a stream. */

/** What happens to new messages that a full queue cannot store. */
export type WhenFull = "block" | "drop-newest" | "drop-oldest";

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
   * Bytes that the reader does not get: they were dropped, are damaged, or were in memory when a server
   * was killed. `atMost`: perhaps fewer were lost.
   */
  | { event: "gap"; from: number; to: number; atMost?: true };
