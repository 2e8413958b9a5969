/**
 * Room: TCP connections as Deno, Bun and Node can all promise them.
 * In: hosts and ports to listen on or to connect to.
 * Out: `Connection`, which keeps no queue of its own. One file a runtime implements the contract
 * in this file, and load.ts chooses the file.
 */
import type { Address } from "../kernel/address.ts";
import type { Runtime } from "../kernel/runtime.ts";

/**
 * Why a connection ended, as this side saw it first.
 * - `local`: we closed or reset it;
 * - `eof`: the peer's FIN was read, and then we closed;
 * - `reset`: the peer's RST arrived (ECONNRESET, or EPIPE on a later write);
 * - `error`: anything else, with its errno name.
 */
export interface Closed {
  reason: "local" | "eof" | "reset" | "error";
  /** The errno's name (`ECONNRESET`), where there was one. */
  errno?: string;
}

/** A TCP connection that keeps no queue of its own. */
export interface Connection {
  readonly local: Address;
  readonly remote: Address;
  /** The descriptor, for kernel.ts; undefined where the runtime shows none, and once closed. */
  readonly fd: number | undefined;
  /**
   * Bytes that the runtime may read from the kernel before the program asks for them; a result
   * that rests on the receive queue says so.
   */
  readonly readAhead: number;
  /**
   * When the kernel stopped taking bytes, in ms of `performance.now()`: a write came back short,
   * or still waits. Undefined while the kernel takes what it is given.
   */
  readonly blockedSince: number | undefined;
  /**
   * Bytes of the write in flight that the runtime holds in user space because the kernel has not
   * taken them: at most one chunk, and not counted as accepted. 0 where nothing is ever held,
   * undefined where the runtime does not tell (node:net on Deno and Bun).
   */
  readonly held: number | undefined;
  /**
   * Offers bytes to the kernel, and tells how many of them it took: at once where the runtime can
   * say so, else as a promise that waits for the kernel to take one byte at least. What was not
   * taken is still the caller's. 0: the connection has ended, see `closed`. Never throws.
   *
   * One write at a time. The bytes may not change until it settles.
   */
  write(bytes: Uint8Array): number | Promise<number>;
  /**
   * Takes at most `limit` bytes: a view that is valid until the next read, or null at the end
   * (whatever ended it: `closed` says). Answers at once where bytes are already there. Never throws.
   *
   * One read at a time.
   */
  read(limit: number): Uint8Array | null | Promise<Uint8Array | null>;
  /** Sends FIN: nothing more will be written, reading goes on. */
  closeWrite(): Promise<void>;
  /** close(2): whether it sends FIN or RST is the kernel's decision. May be called twice. */
  close(): void;
  /** Ends with RST, whatever is queued. May be called twice. */
  reset(): void;
  /** Settles once, when the connection has ended; never rejects. */
  readonly closed: Promise<Closed>;
}

/** A listening socket. */
export interface Listener {
  readonly address: Address;
  /** Stops listening; connections live on. */
  close(): Promise<void>;
}

export interface ListenOptions {
  host: string;
  /** 0: any free one. */
  port: number;
  /** Called once for each accepted connection; nothing is read from it before its first `read`. */
  onConnection: (connection: Connection) => void;
}

export interface ConnectOptions {
  host: string;
  port: number;
  /** What one read asks of the kernel, where the runtime lets us say: bytes, default 64 KiB. */
  readSize?: number;
  /**
   * Reads as the runtime itself does, and never past it (direct_reads.ts): for who measures the
   * runtime. Default false.
   */
  runtimeReads?: boolean;
}

/** What one runtime gives. */
export interface Adapter {
  readonly name: Runtime;
  /**
   * Whether `reset`, and `close` with unread bytes, really send RST; Deno needs libc for it, see
   * kernel.ts.
   */
  readonly canReset: boolean;
  /** Rejects with a NetError: EADDRINUSE, EADDRNOTAVAIL, EACCES, ENOTFOUND. */
  listen(options: ListenOptions): Promise<Listener>;
  /** Rejects with a NetError: ECONNREFUSED, ENOTFOUND, ETIMEDOUT. */
  connect(options: ConnectOptions): Promise<Connection>;
}

/** A socket could not be opened. Its message is one line: what was asked, and what happened. */
export class NetError extends Error {
  override name = "NetError";
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
  ECONNREFUSED: "nothing listens there",
  ECONNRESET: "the peer reset the connection",
  ENOTFOUND: "the host name does not resolve",
  ETIMEDOUT: "no answer",
};

/** What one read asks of the kernel unless told otherwise. */
export const DEFAULT_READ_SIZE = 65_536;
