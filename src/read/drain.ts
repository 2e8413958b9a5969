/**
 * The drain client: the article's reader, naive or fixed, with the work of a real one.
 *
 * It reads, works, hands the chunk on, replies, in that order and one chunk at a time, so that
 * whatever is slow here shows as a receive queue that grows and a window that closes.
 */
import { Acknowledger, type AckOptions, introduce } from "./acknowledger.ts";
import { isReaderName, isStream, type StreamOffset } from "../message/protocol.ts";
import { Forward } from "./forward.ts";
import { kernelSourceReason } from "../kernel/kernel.ts";
import { setBufferSize } from "../kernel/socket_calls.ts";
import { type Adapter, type Connection, DEFAULT_READ_SIZE } from "../net/net.ts";
import type { Address } from "../kernel/address.ts";
import { loadAdapter } from "../net/load.ts";
import { type Latency, LatencyMeter, type LatencyOptions } from "./latency.ts";
import { type DrainHandler, Reading, type Work } from "./read_loop.ts";
import { checkNumberedSize, type NumberedTotals, NumberedVerifier } from "../message/numbered.ts";
import { formatSize } from "../text/units.ts";

export type { DrainHandler } from "./read_loop.ts";

/**
 * - `naive`: the article's reader; 10 bytes a read, and a reply to each;
 * - `drain`: the article's fix; takes what is there, 64 KiB a read, and does not reply.
 */
export type DrainMode = "naive" | "drain";

export interface DrainOptions {
  /** Default 127.0.0.1. */
  host?: string | undefined;
  /** Default 8000. */
  port?: number | undefined;
  /** Sets the defaults of `readSize` and `reply`; default `drain`. */
  mode?: DrainMode | undefined;
  /** The most that one read takes: bytes, default 10 when naive, else 65,536. */
  readSize?: number | undefined;
  /** Reads as the runtime itself does, and never past it; see `ConnectOptions`. Default false. */
  runtimeReads?: boolean | undefined;
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
  /** Its name, said to the server before anything else; 1 to 64 of `A-Z a-z 0-9 . _ -`. */
  hello?: string | undefined;
  /**
   * Acknowledges what it has handled (its handler has returned, its forward's kernel has taken it)
   * to a server that speaks the protocol of ack.ts; what was handled after the last one comes again.
   * At most every 10 ms or 1 MiB, and at the end. In whole messages with `verify`. Not with replies.
   */
  ack?: AckOptions | undefined;
  /** Checks that all are numbered messages of `size` bytes, and none is missing; see `verified`. */
  verify?: { size: number } | undefined;
  /** Measures how late numbered messages come; see `latency` of the result. */
  latency?: LatencyOptions | undefined;
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
  /** Where it stands: all before it was handled, and stored. Absent without `ack`. */
  stored?: StreamOffset;
  /** Bytes between what was stored before and what the server still had. Absent without `ack`. */
  missed?: number;
  /** What was wrong with the numbered messages; absent without `verify`. */
  verified?: DrainVerified;
  /**
   * The time from the planned send to the read, as percentiles: corrected for coordinated omission.
   * Absent without `latency`, and when no message came that carries a plausible time.
   */
  latency?: Latency;
  /** From the connection's start. */
  seconds: number;
  bytesPerSecond: number;
  runtime: Adapter["name"];
  /** Bytes that the runtime may have taken from the kernel ahead of the program. */
  readAhead: number;
}

/** Of numbered messages; what the server said is gone is among the gaps. */
export interface DrainVerified extends NumberedTotals {
  /** Bytes of a message that the end cut off; absent when there was none. */
  partial?: number;
}

/** What the article's reader replies. */
export const NAIVE_REPLY = "Hi i got the data";
const NAIVE_READ_SIZE = 10;

/**
 * Reads from a server until something ends it, and tells what it was. Rejects with a NetError when
 * a server cannot be connected to, and with an Error when the receive buffer cannot be set, the
 * handler or `onStore` throws, or the forward's server goes away; with a RangeError when an option
 * cannot be; with `ack` as `introduce` does.
 */
export async function drain(options: DrainOptions = {}): Promise<DrainResult> {
  const { host = "127.0.0.1", port = 8000, mode = "drain", runtimeReads = false, signal } = options;
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
    connection = await unlessStopped(
      net.connect({ host, port, readSize, runtimeReads }),
      stopped.promise,
    );
    if (connection === undefined) return result;
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
      const answer = await Promise.race([introduce(connection, hello, ack), stopped.promise]);
      if (typeof answer === "string") return { ...result, ended: answer };
      at = answer;
    }
    const acks = ack && at && new Acknowledger(connection, at, verify?.size ?? 1, ack);
    const verifier = verify && verifierFrom(at?.offset ?? 0, verify.size);
    const meter = options.latency && new LatencyMeter(options.latency);
    if (meter) checkBegins("measure", at?.offset ?? 0, options.latency!.size);
    const watchers = [meter, verifier].filter((each) => each !== undefined);
    const handler = watchers.length > 0 ? watching(watchers, options.handler) : options.handler;
    const { count, workMs } = options;
    const work: Work = { readSize, count, workMs, handler, forward, acks, reply };
    const reading = new Reading(connection, result, work);
    let stop: DrainEnd | undefined;
    try {
      // A handler that never settles does not outlive the time that it was given.
      const ends = [stopped.promise, reading.run(), ...(acks === undefined ? [] : [acks.failed])];
      stop = await Promise.race(ends);
      result.seconds = (performance.now() - started) / 1000;
      result.bytesPerSecond = result.bytes / result.seconds;
    } finally {
      reading.stopped = true;
      await acks?.finish();
    }
    connection.close();
    if (acks !== undefined) {
      result.stored = acks.stored;
      result.missed = acks.missed;
    }
    if (verifier !== undefined) result.verified = verified(verifier, verify!.size, acks?.missed);
    const latency = meter?.result();
    if (latency !== undefined) result.latency = latency;
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
  throw new RangeError(`latency.settleMs must be a number from 0 on, is ${settleMs}`);
}

function checkAck({ offset, stream }: AckOptions, { mode, reply }: DrainOptions): void {
  if ((offset === undefined) !== (stream === undefined)) {
    throw new RangeError("ack.offset and ack.stream need each other: give both or none");
  }
  if (offset !== undefined && !(Number.isSafeInteger(offset) && offset >= 0)) {
    throw new RangeError(`ack.offset must be a whole number from 0 on, is ${offset}`);
  }
  if (stream !== undefined && !isStream(stream)) {
    throw new RangeError(`ack.stream must be 16 hex digits, is ${JSON.stringify(stream)}`);
  }
  const replies = reply === undefined ? mode === "naive" : reply !== null;
  if (replies) throw new RangeError("ack excludes replies: the server would take them for acks");
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

function verifierFrom(offset: number, size: number): NumberedVerifier {
  checkBegins("verify", offset, size);
  return new NumberedVerifier(size, offset / size);
}

/** Throws an Error where no message of that size begins. */
function checkBegins(what: "verify" | "measure", offset: number, size: number): void {
  if (offset % size === 0) return;
  throw new Error(
    `cannot ${what} messages of ${size} bytes from offset ${offset} on: none of them begins there`,
  );
}

/** Shows each chunk to the watchers first: the handler may change it. */
function watching(
  watchers: readonly { push(chunk: Uint8Array): void }[],
  handler: DrainHandler | undefined,
): DrainHandler {
  return (chunk) => {
    for (const watcher of watchers) watcher.push(chunk);
    return handler === undefined ? chunk : handler(chunk);
  };
}

function verified(verifier: NumberedVerifier, size: number, missed: number = 0): DrainVerified {
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
