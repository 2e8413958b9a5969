/** The flood server: every reader that connects gets a flood of its own, like the article's fork. */
import { Flood, type Replies } from "./flood.ts";
import { setBufferSize } from "./kernel.ts";
import { libc } from "./libc.ts";
import type { Message } from "./message.ts";
import { type Adapter, type Address, type Closed, type Connection, loadAdapter } from "./net.ts";
import type { Policy } from "./overflow.ts";
import { Ticker } from "./pacer.ts";

export interface ServeOptions {
  /** Default 127.0.0.1: loopback only; any other address must be asked for. */
  host?: string;
  /** Default 8000; 0: any free one. */
  port?: number;
  message: Message;
  /** Messages a second, to each reader; Infinity: as fast as its kernel takes them. */
  rate: number;
  /** Default: close. */
  overflow?: Policy;
  /** Bytes that may wait for the kernel before the policy acts; default 0: the first full buffer. */
  backlog?: number;
  /** Default: ignore. */
  replies?: Replies;
  /** SO_SNDBUF of each connection; the kernel takes the double. Default: it tunes itself. */
  sendBuffer?: number;
  /** Generates for so long from the first reader on, then delivers what is pending and ends; ms. */
  durationMs?: number;
  /** Readers at once; a further one is hung up on. Default: no limit. */
  maxReaders?: number;
  /** How often `sent` is reported for each reader; ms, default never. */
  sentEveryMs?: number;
  adapter?: Adapter;
  /** Ends the server at once. */
  signal?: AbortSignal | undefined;
  onEvent?: (event: ServeEvent) => void;
}

/** What happens in a server's life. `reader` counts from 1; `time` is in seconds since it listens. */
export type ServeEvent =
  & { time: number }
  & (
    | { event: "listening"; host: string; port: number }
    | { event: "reader"; reader: number; host: string; port: number }
    | { event: "refused"; host: string; port: number; readers: number }
    | { event: "sent"; reader: number; messages: number }
    | { event: "overflow"; reader: number; policy: Policy; messages: number; backlog: number }
    | ({ event: "closed"; reader: number } & ReaderTotals & Closed)
    | ({ event: "done" } & ServeResult)
  );

/** What was sent to one reader. */
export interface ReaderTotals {
  /** Whole messages that the kernel accepted. */
  messages: number;
  /** Bytes that it accepted. */
  bytes: number;
  /** Messages that the policy dropped. */
  dropped: number;
  /** How often the policy had to act. */
  overflows: number;
  /** From its connection to its end. */
  seconds: number;
}

/** All of a server's life. */
export interface ServeResult extends ReaderTotals {
  /** Readers that came. */
  readers: number;
}

export interface Server {
  readonly address: Address;
  /** Settles when the server has ended: by its duration, by the signal, or by `stop`. */
  readonly done: Promise<ServeResult>;
  /** Hangs up on all readers, and ends. */
  stop(): Promise<ServeResult>;
}

/** Listens, and floods whoever connects. Rejects with a NetError when it cannot listen. */
export async function serve(options: ServeOptions): Promise<Server> {
  const { host = "127.0.0.1", port = 8000, sendBuffer, signal } = options;
  if (sendBuffer !== undefined && typeof libc === "string") {
    throw new Error(`cannot set the send buffer to ${sendBuffer}: ${libc}`);
  }
  const net = options.adapter ?? await loadAdapter();
  const ticker = new Ticker();
  const startMs = performance.now();
  const seconds = () => (performance.now() - startMs) / 1000;
  const emit = options.onEvent ?? (() => {});
  const floods = new Set<Flood>();
  const total: ServeResult = {
    readers: 0,
    messages: 0,
    bytes: 0,
    dropped: 0,
    overflows: 0,
    seconds: 0,
  };
  const done = Promise.withResolvers<ServeResult>();
  let ending = false;
  let listening = true;
  let endsAtMs = Infinity;
  let timer: ReturnType<typeof setTimeout> | undefined;

  const finish = (): void => {
    if (listening || floods.size > 0) return;
    signal?.removeEventListener("abort", hangUp);
    total.seconds = seconds();
    emit({ event: "done", time: total.seconds, ...total });
    done.resolve(total);
  };
  const end = async (how: (flood: Flood) => void): Promise<void> => {
    clearTimeout(timer);
    for (const flood of floods) how(flood);
    if (ending) return;
    ending = true;
    await listener.close();
    listening = false;
    finish();
  };
  const hangUp = () => void end((flood) => flood.connection.close());

  const feed = async (connection: Connection): Promise<void> => {
    const { maxReaders = Infinity, durationMs } = options;
    if (ending || floods.size >= maxReaders) {
      connection.close();
      const { remote } = connection;
      emit({ event: "refused", time: seconds(), ...remote, readers: floods.size });
      return;
    }
    const reader = ++total.readers;
    const startedMs = performance.now();
    if (reader === 1 && durationMs !== undefined) {
      endsAtMs = startedMs + durationMs;
      timer = setTimeout(() => void end((flood) => flood.finish(endsAtMs)), durationMs);
    }
    const connectedAt = seconds();
    emit({ event: "reader", time: connectedAt, reader, ...connection.remote });
    if (sendBuffer !== undefined && connection.fd !== undefined) {
      setBufferSize(connection.fd, "send", sendBuffer);
    }
    const { overflow: policy = "close", backlog = 0, replies = "ignore", message } = options;
    let tellSent = () => {};
    const flood = new Flood({
      connection,
      message,
      ticker,
      policy,
      bound: backlog,
      replies,
      onOverflow: (flood) => {
        tellSent();
        const { pendingMessages } = flood;
        emit({
          event: "overflow",
          time: seconds(),
          reader,
          policy,
          messages: sentBy(flood),
          backlog: pendingMessages * message.size,
        });
      },
    });
    floods.add(flood);
    const stopReporting = reportSent(flood, reader);
    tellSent = stopReporting.tell;
    flood.start(options.rate, startedMs, endsAtMs);
    const closed = await flood.done;
    stopReporting.stop();
    floods.delete(flood);
    const totals: ReaderTotals = {
      messages: sentBy(flood),
      bytes: flood.accepted,
      dropped: flood.dropped,
      overflows: flood.overflows,
      seconds: seconds() - connectedAt,
    };
    total.messages += totals.messages;
    total.bytes += totals.bytes;
    total.dropped += totals.dropped;
    total.overflows += totals.overflows;
    emit({ event: "closed", time: seconds(), reader, ...totals, ...closed });
    finish();
  };

  const reportSent = (flood: Flood, reader: number): { stop: () => void; tell: () => void } => {
    const { sentEveryMs } = options;
    if (sentEveryMs === undefined) return { stop() {}, tell() {} };
    let reported = 0;
    const tell = () => {
      const messages = sentBy(flood);
      if (messages > reported) emit({ event: "sent", time: seconds(), reader, messages });
      reported = messages;
    };
    const interval = setInterval(tell, sentEveryMs);
    return {
      stop() {
        clearInterval(interval);
        tell();
      },
      tell,
    };
  };

  const listener = await net.listen({
    host,
    port,
    onConnection: (connection) => void feed(connection),
  });
  emit({ event: "listening", time: seconds(), ...listener.address });
  if (signal?.aborted) hangUp();
  else signal?.addEventListener("abort", hangUp);
  return {
    address: listener.address,
    done: done.promise,
    stop() {
      hangUp();
      return done.promise;
    },
  };
}

/** Whole messages that the kernel accepted. */
const sentBy = (flood: Flood): number => Math.floor(flood.accepted / flood.message.size);
