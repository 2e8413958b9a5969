/**
 * Room: the drain client: the article's reader, naive or fixed, with the work of a real one.
 * In: `DrainOptions`: a server, how to read, what to do with each chunk, when to stop.
 * Out: `DrainResult`: how it ended, how fast it was; optionally what was wrong with numbered messages,
 * their latency, and the acknowledged offset.
 */
import type { Address } from "../kernel/address.ts";
import { setUserTimeout, SILENCE_MS } from "../kernel/keepalive.ts";
import { kernelSourceReason } from "../kernel/kernel.ts";
import { setBufferSize } from "../kernel/socket_calls.ts";
import { checkNumberedSize, type NumberedTotals, NumberedVerifier } from "../message/numbered.ts";
import { isReaderName, isStream, type StreamOffset } from "../message/protocol.ts";
import { loadAdapter } from "../net/load.ts";
import { type Adapter, type Connection, DEFAULT_READ_SIZE } from "../net/net.ts";
import { formatSize } from "../text/units.ts";
import { Acknowledger, type AckOptions, handshake } from "./acknowledger.ts";
import { Forward } from "./forward.ts";
import { type Latency, LatencyMeter, type LatencyOptions } from "./latency.ts";
import { type DrainHandler, ReadLoop, type ReadLoopOptions } from "./read_loop.ts";

export type { DrainHandler } from "./read_loop.ts";

/**
 * - `naive`: the article's reader: reads 10 bytes at a time and replies to each;
 * - `drain`: the article's fix: reads up to 64 KiB at a time and does not reply.
 */
export type DrainMode = "naive" | "drain";

export interface DrainOptions {
  /** Default 127.0.0.1. */
  host?: string | undefined;
  /** Default 8000. */
  port?: number | undefined;
  /** Sets the defaults of `readSize` and `reply`; default `drain`. */
  mode?: DrainMode | undefined;
  /** The most that one read returns: bytes, default 10 when naive, else 65,536. */
  readSize?: number | undefined;
  /** Always reads through the runtime, never directly; see `ConnectOptions`. Default false. */
  runtimeReads?: boolean | undefined;
  /** Sent after each read; null: nothing. Default `Hi i got the data` when naive, else null. */
  reply?: string | null | undefined;
  /** Time spent computing after each read: ms, default 0. */
  workMs?: number | undefined;
  handler?: DrainHandler | undefined;
  /**
   * A server to which each chunk is sent on, or what the handler returns. The next read waits until
   * our kernel has taken it.
   */
  forward?: Address | undefined;
  /**
   * SO_RCVBUF in bytes, which the kernel doubles. Default: the kernel tunes it. It is set after the
   * connection is open. Below 24 KiB, a sender on this host has already seen a larger window and waits
   * for its probe timer: it sends one buffer every 200 ms, whatever the reader does (Linux 6.18).
   */
  receiveBuffer?: number | undefined;
  /** Stops after this time: ms, default: no limit. */
  durationMs?: number | undefined;
  /** Stops after this many bytes; default: no limit. */
  count?: number | undefined;
  /** The reader's name, sent to the server first: 1 to 64 of `A-Z a-z 0-9 . _ -`. Default: none. */
  hello?: string | undefined;
  /**
   * Acknowledges processed bytes (the handler has returned, our kernel has taken forwarded bytes) to a
   * server that implements the protocol in src/message/protocol.ts. After a reconnection the server
   * sends again what was not acknowledged. Acknowledges every 10 ms or 1 MiB and at the end; with
   * `verify`, only whole messages. Excludes replies.
   */
  ack?: AckOptions | undefined;
  /** Checks numbered messages of `size` bytes; see `verified` of the result. */
  verify?: { size: number } | undefined;
  /** Measures the latency of numbered messages; see `latency` of the result. */
  latency?: LatencyOptions | undefined;
  /** Stops the client; the result has `ended: "interrupted"`. */
  signal?: AbortSignal | undefined;
  /** Called once, when the connection is open. */
  onConnected?: ((remote: Address) => void) | undefined;
  /** Default: the adapter of this runtime. */
  adapter?: Adapter | undefined;
}

/**
 * How it ended: after `durationMs` (`time`), after `count` bytes, by the server's FIN (`eof`) or RST
 * (`reset`), by another `error` of the connection, or by the signal (`interrupted`).
 */
export type DrainEnd = "time" | "count" | "eof" | "reset" | "error" | "interrupted";

export interface DrainResult {
  ended: DrainEnd;
  /** The errno's name, where there was one. */
  errno?: string;
  mode: DrainMode;
  readSize: number;
  bytes: number;
  /** Reads that returned bytes. If `readAhead` is at most `readSize`, each is one read(2) too. */
  reads: number;
  replies: number;
  /** Bytes that our kernel took for `forward`; absent without it. */
  forwarded?: number;
  /** All bytes before this offset were processed and stored. Absent without `ack`. */
  stored?: StreamOffset;
  /** Bytes after the stored offset that the server no longer had. Absent without `ack`. */
  missed?: number;
  /** What was wrong with the numbered messages; absent without `verify`. */
  verified?: DrainVerified;
  /**
   * Percentiles of the time from the planned send to the read. Absent without `latency`, and when no
   * message with a plausible time arrived.
   */
  latency?: Latency;
  /** Time since the connection was open. */
  seconds: number;
  bytesPerSecond: number;
  runtime: Adapter["name"];
  /** Bytes that the runtime may read from the kernel before the program requests them. */
  readAhead: number;
}

/** `missing` includes the messages that the server no longer had. */
export interface DrainVerified extends NumberedTotals {
  /** Bytes of an incomplete message at the end of the stream; absent when there was none. */
  partial?: number;
}

/** The reply of the article's reader. */
export const NAIVE_REPLY = "Hi i got the data";
const NAIVE_READ_SIZE = 10;

/**
 * Reads from a server until an end condition is met. It processes one chunk at a time: read, work,
 * forward, reply. So if any step is slow, the receive queue grows and the window closes.
 *
 * Rejects with a NetError when it cannot connect or the `forward` server disconnects; with a RangeError
 * for an invalid option; with an Error when the receive buffer cannot be set, or the handler or
 * `onStore` throws; with `ack` also with a ProtocolError or an OtherStreamError.
 */
export async function drain(options: DrainOptions = {}): Promise<DrainResult> {
  const { host = "127.0.0.1", port = 8000, mode = "drain", runtimeReads = false, signal } = options;
  const naive = mode === "naive";
  const { readSize = naive ? NAIVE_READ_SIZE : DEFAULT_READ_SIZE } = options;
  const { reply = naive ? NAIVE_REPLY : null } = options;
  checkOptions(options);
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
    connection = await unlessStopped(
      net.connect({ host, port, readSize, runtimeReads }),
      stopped.promise,
    );
    if (connection === undefined) return result;
    // Not with replies: a server may leave them unread, and Linux takes that for a dead peer.
    if (reply === null && connection.fd !== undefined) setUserTimeout(connection.fd, SILENCE_MS);
    result.readAhead = connection.readAhead;
    const started = performance.now();
    if (options.receiveBuffer !== undefined) limitReceiveBuffer(connection, options.receiveBuffer);
    if (options.durationMs !== undefined) {
      timer = setTimeout(() => stopped.resolve("time"), options.durationMs);
    }
    options.onConnected?.(connection.remote);

    const { hello, ack, verify } = options;
    let at: StreamOffset | undefined;
    if (hello !== undefined || ack !== undefined) {
      const answer = await Promise.race([handshake(connection, hello, ack), stopped.promise]);
      if (typeof answer === "string") return { ...result, ended: answer };
      at = answer;
    }
    const acks = ack && at && new Acknowledger(connection, at, verify?.size ?? 1, ack);
    const verifier = verify && verifierFrom(at?.offset ?? 0, verify.size);
    const meter = options.latency && new LatencyMeter(options.latency);
    if (meter) checkMessageStart("measure", at?.offset ?? 0, options.latency!.size);
    const observers = [meter, verifier].filter((each) => each !== undefined);
    const handler = observers.length > 0 ? observed(observers, options.handler) : options.handler;
    const { count, workMs } = options;
    const perChunk: ReadLoopOptions = { readSize, count, workMs, handler, forward, acks, reply };
    const loop = new ReadLoop(connection, result, perChunk);
    let stop: DrainEnd | undefined;
    try {
      // A race, so that a handler that never settles cannot keep the client from stopping.
      const ends = [stopped.promise, loop.run(), ...(acks === undefined ? [] : [acks.failed])];
      stop = await Promise.race(ends);
      result.seconds = (performance.now() - started) / 1000;
      result.bytesPerSecond = result.bytes / result.seconds;
    } finally {
      loop.stopped = true;
      await acks?.finish();
    }
    connection.close();
    if (acks !== undefined) {
      result.stored = acks.stored;
      result.missed = acks.missed;
    }
    if (verifier !== undefined) {
      result.verified = verificationResult(verifier, verify!.size, acks?.missed);
    }
    const latency = meter?.result();
    if (latency !== undefined) result.latency = latency;
    if (stop !== undefined) {
      result.ended = stop;
    } else {
      const { reason, errno } = await connection.closed;
      // "local" can only be the close above, which came after the loop had read the end.
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

/** Throws a RangeError for an invalid option. */
function checkOptions(options: DrainOptions): void {
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
  const { hello, ack, verify, latency } = options;
  if (hello !== undefined && !isReaderName(hello)) {
    throw new RangeError(`hello must be 1 to 64 of A-Z a-z 0-9 . _ -, is ${JSON.stringify(hello)}`);
  }
  if (verify !== undefined) checkNumberedSize(verify.size);
  if (latency !== undefined) checkLatency(latency);
  if (ack !== undefined) checkAck(ack, options);
}

function checkLatency({ size, settleMs = 0 }: LatencyOptions): void {
  checkNumberedSize(size);
  if (settleMs >= 0 && settleMs < Infinity) return;
  throw new RangeError(`latency.settleMs must be a number of at least 0, is ${settleMs}`);
}

function checkAck({ offset, stream }: AckOptions, { mode, reply }: DrainOptions): void {
  if ((offset === undefined) !== (stream === undefined)) {
    throw new RangeError("ack.offset and ack.stream must be given together");
  }
  if (offset !== undefined && !(Number.isSafeInteger(offset) && offset >= 0)) {
    throw new RangeError(`ack.offset must be a whole number of at least 0, is ${offset}`);
  }
  if (stream !== undefined && !isStream(stream)) {
    throw new RangeError(`ack.stream must be 16 hex digits, is ${JSON.stringify(stream)}`);
  }
  const replies = reply === undefined ? mode === "naive" : reply !== null;
  if (replies) {
    throw new RangeError("ack excludes replies: the server would read them as acknowledgements");
  }
}

/** The connection; undefined if the client was stopped first, and then it is closed once open. */
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
    ? "this runtime does not expose the descriptor of an outgoing connection"
    : kernelSourceReason ?? "the kernel refused";
  throw new Error(`cannot set the receive buffer to ${formatSize(bytes)}: ${why}`);
}

function verifierFrom(offset: number, size: number): NumberedVerifier {
  checkMessageStart("verify", offset, size);
  return new NumberedVerifier(size, offset / size);
}

/** Throws an Error if no message of this size begins at the offset. */
function checkMessageStart(what: "verify" | "measure", offset: number, size: number): void {
  if (offset % size === 0) return;
  throw new Error(
    `cannot ${what} messages of ${size} bytes from offset ${offset} on: no message begins there`,
  );
}

/** A handler that first passes each chunk to the observers, because `handler` may change it. */
function observed(
  observers: readonly { push(chunk: Uint8Array): void }[],
  handler: DrainHandler | undefined,
): DrainHandler {
  return (chunk) => {
    for (const observer of observers) observer.push(chunk);
    return handler === undefined ? chunk : handler(chunk);
  };
}

function verificationResult(
  verifier: NumberedVerifier,
  size: number,
  missed: number = 0,
): DrainVerified {
  const { messages, missing, duplicates, outOfOrder, damaged } = verifier;
  const partial = verifier.end();
  return {
    messages,
    missing: missing + Math.ceil(missed / size),
    duplicates,
    outOfOrder,
    damaged,
    ...(partial === 0 ? {} : { partial }),
  };
}
