/** What a server does when the kernel takes no more and the backlog is over its bound. */

/** The policies by name; DESIGN calls the decision itself "policy". */
export type Policy = "close" | "reset" | "block" | "drop";

/** What a policy may do to a flood. */
export interface Overflowing {
  /** Whole messages generated and not yet begun: what `drop` may drop. */
  readonly pendingMessages: number;
  /** Forgets the newest of them, and counts them. */
  drop(messages: number): void;
  /** Stops the flood and ends its connection. */
  end(how: "close" | "reset"): void;
}

/**
 * One small function each. They are called at every tick of an overflow, with the bound in whole
 * messages.
 */
export const POLICIES: Record<Policy, (flood: Overflowing, bound: number) => void> = {
  /** close(2), as the article's server did: whether it sends FIN or RST is the kernel's decision. */
  close: (flood) => flood.end("close"),
  /** RST. */
  reset: (flood) => flood.end("reset"),
  /** Waits: what is owed stays owed. */
  block() {},
  /** Drops the newest messages that are over the bound, whole ones. */
  drop: (flood, bound) => flood.drop(Math.max(0, flood.pendingMessages - bound)),
};
