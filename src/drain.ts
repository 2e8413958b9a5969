/**
 * The drain client: the article's reader, naive or fixed, with the work of a real one.
 *
 * It reads, works, hands the chunk on, replies, in that order and one chunk at a time, so that
 * whatever is slow here shows as a receive queue that grows and a window that closes.
 */
import { setImmediate } from "node:timers";
import { Forward } from "./forward.ts";
import { kernelSourceReason, setBufferSize } from "./kernel.ts";
import {
  type Adapter,
  type Address,
  type Connection,
  DEFAULT_READ_SIZE,
  loadAdapter,
} from "./net.ts";
import { formatBytes, formatSize } from "./units.ts";

/**
 * - `naive`: the article's reader; 10 bytes a read, and a reply to each;
 * - `drain`: the article's fix; takes what is there, 64 KiB a read, and does not reply.
 */
export type DrainMode = "naive" | "drain";

/**
 * The caller's own code. The chunk is a view that is valid until the handler has returned, or its
 * promise has settled: copy what is to be kept. What it returns goes to `forward`.
 */
export type DrainHandler = (
  chunk: Uint8Array,
) => Uint8Array | void | Promise<Uint8Array | void>;

export interface DrainOptions {
  /** Default 127.0.0.1. */
  host?: string | undefined;
  /** Default 8000. */
  port?: number | undefined;
  /** Sets the defaults of `readSize` and `reply`; default `drain`. */
  mode?: DrainMode | undefined;
  /** The most that one read takes: bytes, default 10 when naive, else 65,536. */
  readSize?: number | undefined;
  /** Sent after each read, default `Hi i got the data` when naive, else null: none. */
  reply?: string | null | undefined;
  /** Time spent computing after each read: ms, default 0. */
  workMs?: number | undefined;
  handler?: DrainHandler | undefined;
  /**
   * Where what the handler returns (without a handler: each chunk) is sent on to. The next read
   * waits for that server's kernel to take it.
   */
  forward?: Address | undefined;
  /**
   * SO_RCVBUF: bytes, of which the kernel takes the double; default: the kernel tunes it. It is set
   * once connected. Under 24 KiB a sender on this host, which has seen a larger window, waits for
   * its probe timer: one buffer every 200 ms, whatever the reader does (tried on Linux 6.18).
   */
  receiveBuffer?: number | undefined;
  /** Default: no end. */
  durationMs?: number | undefined;
  /** Bytes to read, and then to stop; default: no end. */
  count?: number | undefined;
  /** Ends it, as `interrupted`. */
  signal?: AbortSignal | undefined;
  /** Called once when it is connected. */
  onConnected?: ((remote: Address) => void) | undefined;
  /** Default: the one of this runtime. */
  adapter?: Adapter | undefined;
}

/**
 * What ended it: its time or its count was up, the server's FIN (`eof`) or RST (`reset`), another
 * `error` of the connection, or the signal.
 */
export type DrainEnd = "time" | "count" | "eof" | "reset" | "error" | "interrupted";

export interface DrainResult {
  ended: DrainEnd;
  /** The errno's name, where there was one. */
  errno?: string;
  mode: DrainMode;
  readSize: number;
  bytes: number;
  /** Reads that gave bytes; they are the kernel's reads too where `readAhead` is not above `readSize`. */
  reads: number;
  replies: number;
  /** Bytes handed to the kernel for `forward`; absent without one. */
  forwarded?: number;
  /** From the connection's start. */
  seconds: number;
  bytesPerSecond: number;
  runtime: Adapter["name"];
  /** Bytes that the runtime may have taken from the kernel ahead of the program. */
  readAhead: number;
}

/** What the article's reader replies. */
export const NAIVE_REPLY = "Hi i got the data";
const NAIVE_READ_SIZE = 10;

/** How much may happen before timers and signals get their turn. */
const TURN_BYTES = 8 << 20;
const TURN_READS = 4096;
const TURN_MS = 20;

/**
 * Reads from a server until something ends it, and tells what it was. Rejects with a NetError when
 * a server cannot be connected to, and with an Error when the receive buffer cannot be set, the
 * handler throws, or the forward's server goes away, and with a RangeError when an option cannot be.
 */
export async function drain(options: DrainOptions = {}): Promise<DrainResult> {
  const { host = "127.0.0.1", port = 8000, mode = "drain", signal } = options;
  const naive = mode === "naive";
  const { readSize = naive ? NAIVE_READ_SIZE : DEFAULT_READ_SIZE } = options;
  const { reply = naive ? NAIVE_REPLY : null } = options;
  check(options);
  const net = options.adapter ?? await loadAdapter();
  const result: DrainResult = {
    ended: "interrupted",
    mode,
    readSize,
    bytes: 0,
    reads: 0,
    replies: 0,
    seconds: 0,
    bytesPerSecond: 0,
    runtime: net.name,
    readAhead: 0,
  };
  const stopped = Promise.withResolvers<DrainEnd>();
  const onAbort = () => stopped.resolve("interrupted");
  signal?.addEventListener("abort", onAbort);
  if (signal?.aborted) onAbort();
  let connection: Connection | undefined;
  let forward: Forward | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  try {
    if (options.forward !== undefined) {
      const far = await unlessStopped(net.connect(options.forward), stopped.promise);
      if (far === undefined) return result;
      forward = new Forward(far);
    }
    connection = await unlessStopped(net.connect({ host, port, readSize }), stopped.promise);
    if (connection === undefined) return result;
    result.readAhead = connection.readAhead;
    const started = performance.now();
    if (options.receiveBuffer !== undefined) limitReceiveBuffer(connection, options.receiveBuffer);
    if (options.durationMs !== undefined) {
      timer = setTimeout(() => stopped.resolve("time"), options.durationMs);
    }
    options.onConnected?.(connection.remote);

    const reading = new Reading(connection, result, options, readSize, reply, forward);
    // A handler that never settles does not outlive the time that it was given.
    const stop = await Promise.race([stopped.promise, reading.run()]);
    result.seconds = (performance.now() - started) / 1000;
    result.bytesPerSecond = result.bytes / result.seconds;
    reading.stopped = true;
    connection.close();
    if (stop !== undefined) {
      result.ended = stop;
    } else {
      const { reason, errno } = await connection.closed;
      // Only our own close is "local", and that comes after the end was seen.
      result.ended = reason === "local" ? "eof" : reason;
      if (errno !== undefined) result.errno = errno;
    }
    if (forward !== undefined) {
      if (result.ended !== "interrupted") await forward.finish();
      result.forwarded = forward.bytes;
    }
    return { ...result };
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
    connection?.close();
    forward?.close();
  }
}

function check(options: DrainOptions): void {
  const whole = (name: "readSize" | "receiveBuffer" | "count") => {
    const value = options[name];
    if (value === undefined || (Number.isSafeInteger(value) && value > 0)) return;
    throw new RangeError(`${name} must be a whole number above zero, is ${value}`);
  };
  whole("readSize");
  whole("receiveBuffer");
  whole("count");
  const time = (name: "workMs" | "durationMs") => {
    const value = options[name];
    if (value === undefined || (value >= 0 && value < 2 ** 31)) return;
    throw new RangeError(`${name} must be from 0 to 2^31 - 1, is ${value}`);
  };
  time("workMs");
  time("durationMs");
}

/** The connection, or undefined if the stop came first; one that is opened later is closed. */
async function unlessStopped(
  connecting: Promise<Connection>,
  stopped: Promise<unknown>,
): Promise<Connection | undefined> {
  const first = await Promise.race([connecting, stopped.then(() => undefined)]);
  if (first === undefined) void connecting.then((late) => late.close(), () => {});
  return first;
}

function limitReceiveBuffer({ fd }: Connection, bytes: number): void {
  if (fd !== undefined && setBufferSize(fd, "receive", bytes)) return;
  const why = fd === undefined
    ? "this runtime shows no descriptor of an outgoing connection"
    : kernelSourceReason ?? "the kernel refused";
  throw new Error(`cannot set the receive buffer to ${formatSize(bytes)}: ${why}`);
}

/** The loop: no clock and no allocation a read, but what the runtime itself makes of it. */
class Reading {
  /** Set from outside; seen before the next read. */
  stopped = false;
  readonly #connection: Connection;
  readonly #result: DrainResult;
  readonly #readSize: number;
  readonly #count: number;
  readonly #workMs: number;
  readonly #reply: Uint8Array | undefined;
  readonly #handler: DrainHandler | undefined;
  readonly #forward: Forward | undefined;

  constructor(
    connection: Connection,
    result: DrainResult,
    { count = Infinity, workMs = 0, handler }: DrainOptions,
    readSize: number,
    reply: string | null,
    forward: Forward | undefined,
  ) {
    this.#connection = connection;
    this.#result = result;
    this.#readSize = readSize;
    this.#count = count;
    this.#workMs = workMs;
    this.#reply = reply === null ? undefined : new TextEncoder().encode(reply);
    this.#handler = handler;
    this.#forward = forward;
  }

  /** Until the count is reached, or undefined: the connection has ended, or `stopped` is set. */
  async run(): Promise<"count" | undefined> {
    const result = this.#result;
    const works = this.#workMs > 0 || this.#handler !== undefined;
    let turnReads = 0;
    let turnBytes = 0;
    let turnStart = performance.now();
    while (!this.stopped) {
      const size = Math.min(this.#readSize, this.#count - result.bytes);
      const answer = this.#connection.read(size);
      const chunk = answer instanceof Promise ? await answer : answer;
      if (chunk === null) return undefined;
      result.bytes += chunk.length;
      result.reads++;
      if (works || this.#forward !== undefined) {
        const working = this.#work(chunk);
        if (working instanceof Promise) await working;
      }
      if (this.#reply !== undefined) {
        const answer = this.#connection.write(this.#reply);
        const taken = typeof answer === "number" ? answer : await answer;
        if (taken < this.#reply.length && !(await this.#finishReply(taken))) return undefined;
        result.replies++;
      }
      if (result.bytes >= this.#count) return "count";
      turnBytes += chunk.length;
      if (
        ++turnReads >= TURN_READS || turnBytes >= TURN_BYTES ||
        (works && performance.now() - turnStart >= TURN_MS)
      ) {
        // Where reads are answered at once, nothing else gives the event loop a turn.
        await new Promise<void>((resolve) => setImmediate(resolve));
        turnReads = turnBytes = 0;
        turnStart = performance.now();
      }
    }
    return undefined;
  }

  /** The rest of a reply: the article's blocking send. False: the connection has ended. */
  async #finishReply(taken: number): Promise<boolean> {
    let rest = this.#reply!.subarray(taken);
    while (rest.length > 0) {
      if (taken === 0) return false;
      taken = await this.#connection.write(rest);
      rest = rest.subarray(taken);
    }
    return true;
  }

  #work(chunk: Uint8Array): void | Promise<void> {
    if (this.#workMs > 0) {
      const end = performance.now() + this.#workMs;
      while (performance.now() < end);
    }
    if (this.#handler === undefined) return this.#pass(chunk);
    let answer: ReturnType<DrainHandler>;
    try {
      answer = this.#handler(chunk);
    } catch (error) {
      throw this.#handlerFailed(error);
    }
    if (!(answer instanceof Promise)) return this.#pass(answer);
    return answer.then(
      (later) => this.#pass(later),
      (error) => Promise.reject(this.#handlerFailed(error)),
    );
  }

  #pass(chunk: Uint8Array | void): void | Promise<void> {
    if (this.#forward === undefined || chunk === undefined || chunk === null) return;
    if (chunk instanceof Uint8Array) return this.#forward.send(chunk);
    throw new Error(
      `the handler must return a Uint8Array or nothing to forward, not a ${typeof chunk}`,
    );
  }

  #handlerFailed(cause: unknown): Error {
    const text = cause instanceof Error ? cause.message || cause.name : String(cause);
    const after = formatBytes(this.#result.bytes);
    return new Error(`the handler failed after ${after}: ${text}`, { cause });
  }
}
