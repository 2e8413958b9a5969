/** What a server does when the kernel takes no more and the backlog is over its bound. */

/** The policies by name; DESIGN calls the decision itself "policy". */
export type Policy = "close" | "reset" | "block" | "drop" | "spill";

/** A write that waits this long is refused by the kernel, and not just late in the event loop. */
export const FULL_AFTER_MS = 1;

/** What a policy may do to what is on its way to one reader. */
export interface Overflowing {
  /**
   * Forgets the newest messages that are over the bound, whole ones that were not begun, and counts
   * them. Absent where they are refused as they come.
   */
  dropNewest?(): void;
  /** Ends its connection. */
  end(how: "close" | "reset"): void;
  /** Lets it wait on disk. Absent where there is no queue to wait in. */
  spill?(): void;
}

/** One small function each. They are called at every tick of an overflow. */
export const POLICIES: Record<Policy, (it: Overflowing) => void> = {
  /** close(2), as the article's server did: whether it sends FIN or RST is the kernel's decision. */
  close: (it) => it.end("close"),
  /** RST. */
  reset: (it) => it.end("reset"),
  /** Waits: what is owed stays owed. */
  block() {},
  drop: (it) => it.dropNewest?.(),
  spill: (it) => it.spill?.(),
};
