/**
 * What a listener does at the limit of open descriptors (`ulimit -n`).
 *
 * The last descriptors are not for connections: one that gets such a descriptor is closed at once. So the
 * program can still open its files, and accept(2) does not fail. Where it fails, each runtime does something
 * else: Deno (2.9.5) throws, so that deno.ts can wait and try again; Bun (1.4.5) tries the
 * same connection again and again, which keeps a core busy, and reports nothing; Node (26.10) accepts and
 * closes every further connection, and reports nothing either.
 */
import { descriptorLimit } from "../kernel/descriptor_limit.ts";
import type { Connection } from "./net.ts";

/** Descriptors that are not for connections: so many, or an eighth of the limit where that is less. */
const RESERVED = 16;
const RESERVED_SHARE = 8;
/** How long a limit that was read is used, as it can be changed from outside (prlimit(1)). */
const LIMIT_FOR_MS = 1000;
/** The shortest time between two calls of `onFailure`. */
const TELL_EVERY_MS = 1000;

export interface AcceptFailure {
  /** The name of the errno: `EMFILE`, too many descriptors of this process, or `ENFILE`, of all. */
  errno: string;
  /** Connections that were closed, and calls of accept(2) that failed, since the last report. */
  count: number;
}

export class AcceptFailures {
  readonly #onFailure: (failure: AcceptFailure) => void;
  #limit = Infinity;
  #limitReadAtMs = -Infinity;
  #untold: AcceptFailure | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** `onFailure` is called at most once a second. */
  constructor(onFailure: (failure: AcceptFailure) => void) {
    this.#onFailure = onFailure;
  }

  /** Closes a new connection if its descriptor is one of the last, and returns whether. */
  refuses(connection: Connection): boolean {
    const { fd } = connection;
    if (fd === undefined || fd < this.#lastForConnections()) return false;
    connection.close();
    this.failed("EMFILE");
    return true;
  }

  /** accept(2) has failed. */
  failed(errno: string): void {
    this.#untold = { errno, count: 1 + (this.#untold?.count ?? 0) };
    if (this.#timer === undefined) this.#tell();
  }

  /** Reports the failures that are not reported yet. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const untold = this.#untold;
    this.#untold = undefined;
    if (untold !== undefined) this.#onFailure(untold);
  }

  #tell(): void {
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      if (this.#untold !== undefined) this.#tell();
    }, TELL_EVERY_MS);
    const failure = this.#untold!;
    this.#untold = undefined;
    this.#onFailure(failure);
  }

  #lastForConnections(): number {
    const nowMs = performance.now();
    if (nowMs - this.#limitReadAtMs >= LIMIT_FOR_MS) {
      this.#limitReadAtMs = nowMs;
      this.#limit = descriptorLimit() ?? Infinity;
    }
    return this.#limit - Math.min(RESERVED, Math.floor(this.#limit / RESERVED_SHARE));
  }
}
