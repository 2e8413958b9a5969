/**
 * Overflow policies: what a server does when the kernel takes no more bytes for a reader and the
 * backlog is above its bound. Everything about a policy is in its entry in `POLICIES`; its name is
 * in `FloodPolicy` or in `QueuePolicy`.
 */

/** A write that has waited this long is blocked by the kernel, not merely by a busy event loop. */
export const FULL_AFTER_MS = 1;

/** The messages that wait for one reader, as a policy can act on them. */
export interface Overflowing {
  /**
   * Drops the messages above the bound, and counts them. Only whole messages of which nothing was sent.
   * Absent where policies that drop do so when messages arrive. Here all messages are the same, so nobody can
   * tell which of them were dropped.
   */
  drop?(): void;
  /** Closes or resets the connection. */
  end(how: "close" | "reset"): void;
}

export interface OverflowPolicy {
  /** What the server does, as a verb and its object, for the help: `close the connection`. */
  readonly help: string;
  /** The same as a participle, for events and logs: `closing`. */
  readonly doing: string;
  /** Called at every tick (about 1 ms) of an overflow. */
  readonly act: (backlog: Overflowing) => void;
  /** Whether messages are kept for a reader that is not connected. */
  readonly keepsForAbsentReaders: boolean;
  /** The source must wait while the backlog is at the bound. */
  readonly makesSourceWait?: true;
  /** Messages above the bound are dropped, and counted: the newest or the oldest of the backlog. */
  readonly drops?: "newest" | "oldest";
  /** The backlog is moved to a queue on disk, which must be configured. */
  readonly needsQueue?: true;
}

/** The policies that need no queue. A flood without a queue can have only these. */
export type FloodPolicy = "close" | "reset" | "block" | "drop" | "drop-oldest";

/** The policies that need a queue on disk. */
export type QueuePolicy = "spill";

/** What a server does with the messages of a reader whose backlog is above its bound. */
export type Policy = FloodPolicy | QueuePolicy;

type Policies =
  & { readonly [Name in FloodPolicy]: OverflowPolicy & { readonly needsQueue?: never } }
  & { readonly [Name in QueuePolicy]: OverflowPolicy & { readonly needsQueue: true } };

const POLICIES: Policies = {
  close: {
    help: "close the connection, as the article's server does",
    doing: "closing",
    // close(2): the kernel decides whether to send FIN or RST.
    act: (backlog) => backlog.end("close"),
    keepsForAbsentReaders: false,
  },
  reset: {
    help: "reset the connection",
    doing: "resetting",
    act: (backlog) => backlog.end("reset"),
    keepsForAbsentReaders: false,
  },
  block: {
    help: "wait for the reader",
    doing: "waiting",
    act() {},
    keepsForAbsentReaders: true,
    makesSourceWait: true,
  },
  drop: {
    help: "drop new messages and count them",
    doing: "dropping",
    act: (backlog) => backlog.drop?.(),
    keepsForAbsentReaders: true,
    drops: "newest",
  },
  "drop-oldest": {
    help: "drop the oldest messages and count them",
    doing: "dropping the oldest",
    act: (backlog) => backlog.drop?.(),
    keepsForAbsentReaders: true,
    drops: "oldest",
  },
  spill: {
    help: "store the backlog on disk and deliver it later",
    doing: "spilling",
    // The backlog is stored as soon as it is above the bound.
    act() {},
    keepsForAbsentReaders: true,
    needsQueue: true,
  },
};

/** A policy by its name. */
export const policyOf = (name: Policy): OverflowPolicy => POLICIES[name];

/** All policies, in the order of the help. */
export const POLICY_NAMES = Object.keys(POLICIES) as Policy[];

/** Whether a plain flood can have this policy. */
export function isFloodPolicy(name: Policy): name is FloodPolicy {
  return policyOf(name).needsQueue !== true;
}
