/**
 * What a server does when the kernel takes no more bytes for a reader and the backlog is above its
 * bound. A policy is one name in `FloodPolicy` or `QueuePolicy`, and one entry of `POLICIES`, where its
 * words and its action are.
 */

/** A write that waits this long is refused by the kernel, and not just late in the event loop. */
export const FULL_AFTER_MS = 1;

/** What a policy may do to the messages that are on their way to one reader. */
export interface Overflowing {
  /**
   * Drops the newest messages that are above the bound, and counts them: whole messages of which
   * nothing was sent. Absent where a policy that `dropsNewest` refuses them on arrival.
   */
  dropNewest?(): void;
  /** Ends its connection. */
  end(how: "close" | "reset"): void;
  /** Moves its backlog to disk. Absent where there is no queue. */
  spill?(): void;
}

export interface OverflowPolicy {
  /** What it does, as one clause for the help. */
  readonly help: string;
  /** What the server is doing, in events and logs: `closing`. */
  readonly doing: string;
  /** Called at every tick of an overflow. */
  readonly act: (backlog: Overflowing) => void;
  /** Messages are kept for a reader that is not connected. */
  readonly keepsForAbsentReaders: boolean;
  /** The source has to wait as soon as the bound is reached. */
  readonly makesSourceWait?: true;
  /** Messages above the bound are dropped, and counted. */
  readonly dropsNewest?: true;
  /** The backlog goes to a queue on disk, which has to be given. */
  readonly needsQueue?: true;
}

/** The policies that need no queue: what a plain flood can have. */
export type FloodPolicy = "close" | "reset" | "block" | "drop";

/** The policies that need a queue on disk. */
export type QueuePolicy = "spill";

/** What a server does with the messages of a reader whose backlog is above its bound. */
export type Policy = FloodPolicy | QueuePolicy;

type Policies =
  & { readonly [Name in FloodPolicy]: OverflowPolicy & { readonly needsQueue?: never } }
  & { readonly [Name in QueuePolicy]: OverflowPolicy & { readonly needsQueue: true } };

const POLICIES: Policies = {
  close: {
    help: "closes the connection, as the article's server does",
    doing: "closing",
    // close(2): whether it sends FIN or RST is the kernel's decision.
    act: (backlog) => backlog.end("close"),
    keepsForAbsentReaders: false,
  },
  reset: {
    help: "resets the connection",
    doing: "resetting",
    act: (backlog) => backlog.end("reset"),
    keepsForAbsentReaders: false,
  },
  block: {
    help: "waits for the reader",
    doing: "waiting",
    act() {},
    keepsForAbsentReaders: true,
    makesSourceWait: true,
  },
  drop: {
    help: "drops new messages and counts them",
    doing: "dropping",
    act: (backlog) => backlog.dropNewest?.(),
    keepsForAbsentReaders: true,
    dropsNewest: true,
  },
  spill: {
    help: "stores the backlog on disk and delivers it later",
    doing: "spilling",
    act: (backlog) => backlog.spill?.(),
    keepsForAbsentReaders: true,
    needsQueue: true,
  },
};

/** A policy by its name. */
export const policyOf = (name: Policy): OverflowPolicy => POLICIES[name];

/** All names, in the order of the help. */
export const POLICY_NAMES = Object.keys(POLICIES) as Policy[];

/** Whether a plain flood can have this policy. */
export function isFloodPolicy(name: Policy): name is FloodPolicy {
  return policyOf(name).needsQueue !== true;
}
