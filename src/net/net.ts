/**
 * Room: TCP connections with one interface on Deno, Bun and Node.
 * In: hosts and ports to listen on or to connect to.
 * Out: `Connection`, which does not queue data of its own. deno.ts, bun.ts and node.ts implement the
 * contract in this file; load.ts chooses one of them.
 */
import type { Address } from "../kernel/address.ts";
import type { Runtime } from "../kernel/runtime.ts";

/**
 * Why a connection ended, as this side saw it first.
 * - `local`: we closed or reset it;
 * - `eof`: we read the peer's FIN and then closed;
 * - `reset`: the peer's RST arrived (ECONNRESET, or EPIPE on a later write);
 * - `error`: anything else, with its errno name.
 */
export interface Closed {
  reason: "local" | "eof" | "reset" | "error";
  /** The errno's name (`ECONNRESET`), where there was one. */
  errno?: string;
}

/**
 * A TCP connection. It does not queue data beyond what the kernel queues. Keepalive is on: it ends with
 * `error` (ETIMEDOUT) two minutes after an idle peer was last heard of, see src/kernel/keepalive.ts.
 * Without libc that is 70 s on Bun and Node; on Deno the kernel's time, more than two hours.
 */
export interface Connection {
  readonly local: Address;
  readonly remote: Address;
  /** The descriptor, for src/kernel; undefined where the runtime does not expose it, and once closed. */
  readonly fd: number | undefined;
  /**
   * Bytes that the runtime may read from the kernel before the program requests them. They are not
   * in the receive queue, so results that are based on the receive queue must mention them.
   */
  readonly readAhead: number;
  /**
   * When the kernel stopped taking bytes, in ms of `performance.now()`: the last write was only
   * partly taken, or still waits. Undefined while the kernel takes everything.
   */
  readonly blockedSince: number | undefined;
  /**
   * Bytes of the current write that the runtime buffers in user space because the kernel has not
   * taken them: at most one chunk, and not counted as accepted. Always 0 in runtimes that do not
   * buffer, undefined where the runtime does not report it (node:net on Deno and Bun).
   */
  readonly bufferedBytes: number | undefined;
  /**
   * Offers bytes to the kernel and returns how many it took: as a number if that is known at once,
   * else as a promise that waits until the kernel has taken at least one byte. The caller must offer
   * the rest again. 0: the connection has ended, see `closed`. Never throws.
   *
   * Only one write at a time. The bytes must not change until it settles.
   */
  write(bytes: Uint8Array): number | Promise<number>;
  /**
   * Reads at most `limit` bytes: returns a view that is valid until the next read, or null when the
   * connection has ended (`closed` says how). Returns a promise only if it must wait. Never throws.
   *
   * Only one read at a time.
   */
  read(limit: number): Uint8Array | null | Promise<Uint8Array | null>;
  /** Sends FIN. Nothing more can be written; reading continues. */
  closeWrite(): Promise<void>;
  /** close(2): the kernel decides whether to send FIN or RST. Further calls do nothing. */
  close(): void;
  /** Sends RST and discards what is queued. Further calls do nothing. */
  reset(): void;
  /** Settles once, when the connection has ended; never rejects. */
  readonly closed: Promise<Closed>;
}

/** A listening socket. */
export interface Listener {
  readonly address: Address;
  /** Stops listening. Accepted connections stay open. */
  close(): Promise<void>;
}

export interface ListenOptions {
  host: string;
  /** 0: any free port. */
  port: number;
  /** Called once for each accepted connection. Nothing is read from it before its first `read`. */
  onConnection: (connection: Connection) => void;
  /**
   * accept(2) has failed, with this errno: mostly EMFILE. The listener tries again. Only Deno reports it:
   * see accept_failures.ts.
   */
  onAcceptError?: (errno: string) => void;
}

export interface ConnectOptions {
  host: string;
  port: number;
  /** Bytes that one read requests from the kernel, where the runtime lets us choose; default 64 KiB. */
  readSize?: number;
  /**
   * Always reads through the runtime, never directly (direct_reads.ts): for measurements of the
   * runtime itself. Default false.
   */
  runtimeReads?: boolean;
}

/** The implementation for one runtime. */
export interface Adapter {
  readonly name: Runtime;
  /**
   * Whether `reset`, and `close` with unread bytes, really send RST. Deno needs libc for that, see
   * `abort` in src/kernel/socket_calls.ts.
   */
  readonly canReset: boolean;
  /** Rejects with a NetError: EADDRINUSE, EADDRNOTAVAIL, EACCES, ENOTFOUND. */
  listen(options: ListenOptions): Promise<Listener>;
  /** Rejects with a NetError: ECONNREFUSED, ENOTFOUND, ETIMEDOUT. */
  connect(options: ConnectOptions): Promise<Connection>;
}

/** A socket could not be opened. The message is one line: what was tried, and why it failed. */
export class NetError extends Error {
  override name = "NetError";
  /** The errno's name: `ECONNREFUSED`. */
  readonly code: string;
  constructor(what: string, code: string, cause?: unknown) {
    const meaning = MEANINGS[code] ?? (cause instanceof Error ? cause.message : code);
    super(`${what}: ${meaning} (${code})`, { cause });
    this.code = code;
  }
}

const MEANINGS: Record<string, string> = {
  EADDRINUSE: "the port is already in use",
  EADDRNOTAVAIL: "this machine has no such address",
  EACCES: "not permitted",
  EMFILE: "this process has too many open files (ulimit -n)",
  ENFILE: "this machine has too many open files",
  ECONNREFUSED: "nothing listens there",
  ECONNRESET: "the peer reset the connection",
  ENOTFOUND: "the host name does not resolve",
  ETIMEDOUT: "no answer",
};

/**
 * How many connections may wait to be accepted: as many as Linux allows (net.core.somaxconn, 4,096
 * since 5.4), which limits this number. The runtimes' own default, 511, is too few for readers that
 * all connect at once: the kernel drops what is too much. A peer then tries again only after 1, 3 and
 * 7 s, or believes that it is connected and waits for ever (tcp(7), tcp_syncookies).
 */
export const LISTEN_BACKLOG = 65_535;

/** The default of `ConnectOptions.readSize`: bytes. */
export const DEFAULT_READ_SIZE = 65_536;
