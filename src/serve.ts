/** The server: listens, counts who comes, and has each fed, by a flood or by a relay. */
import type { Ack } from "./delivery.ts";
import { createFeeder } from "./feeder.ts";
import type { Replies } from "./flood.ts";
import type { SequenceMessage } from "./flood_source.ts";
import type { Frame } from "./frame.ts";
import { setBufferSize } from "./kernel.ts";
import { libc } from "./libc.ts";
import type { Message } from "./message.ts";
import { type Adapter, type Address, type Closed, type Connection, loadAdapter } from "./net.ts";
import type { Policy } from "./overflow.ts";
import type { Queue } from "./queue.ts";
import type { ReaderId, RelayEvent } from "./relay.ts";
import type { Source } from "./source.ts";

export interface ServeOptions {
  /** Default 127.0.0.1: loopback only; any other address must be asked for. */
  host?: string;
  /** Default 8000; 0: any free one. */
  port?: number;
  /** What a flood sends; default the article's 13 bytes, numbered messages of 64 for spill. */
  message?: Message | SequenceMessage;
  /** Messages a second, to each reader; Infinity: as fast as its kernel takes them. Default 1M. */
  rate?: number;
  /** Default: close. */
  overflow?: Policy;
  /**
   * Bytes that may wait in memory before the policy acts; default 0, the first full buffer, but
   * 8 MiB for spill.
   */
  backlog?: number;
  /** Default: ignore for a plain flood, else drain. */
  replies?: Replies;
  /** SO_SNDBUF of each connection; the kernel takes the double. Default: it tunes itself. */
  sendBuffer?: number;
  /** Generates for so long from the first reader on, then delivers what is pending and ends; ms. */
  durationMs?: number;
  /** Readers at once; a further one is hung up on. Default: no limit. */
  maxReaders?: number;
  /** How often `sent` is reported for each reader; ms, default never. */
  sentEveryMs?: number;
  /** Where the messages come from, instead of a flood for each reader: one for all of them. */
  source?: Source;
  /** Where the source's messages begin and end; default none. */
  frame?: Frame;
  /** Where messages wait that memory does not hold; needed by `spill`, and closed by the caller. */
  queue?: Queue;
  /** Bytes that wait when a spilling reader is fed from memory again; default half the backlog. */
  low?: number;
  /** What becomes of messages that a full queue does not take; default: block. */
  whenFull?: "block" | "drop";
  /**
   * What counts as delivered; default: `reader` for one that asks where to go on as soon as it has
   * connected, else `tcp`, where the kernel tells, else `none`.
   */
  ack?: Ack;
  /** Who comes back; default: single. */
  readerId?: ReaderId;
  /** A reader whose window was zero, and for whom nothing moved, for so long is reset; ms, default never. */
  deadAfterMs?: number;
  /** How long a reader may take to say its name, or its offset, before it is hung up on; ms, default 10 s. */
  patienceMs?: number;
  adapter?: Adapter;
  /** Ends the server at once. */
  signal?: AbortSignal | undefined;
  onEvent?: (event: ServeEvent) => void;
}

/** Without its time. */
export type UntimedEvent = ServeEvent extends infer E
  ? E extends { time: number } ? Omit<E, "time"> : never
  : never;

/** What happens in a server's life. `reader` counts from 1; `time` is in seconds since it listens. */
export type ServeEvent =
  & { time: number }
  & (
    | { event: "listening"; host: string; port: number }
    | { event: "reader"; reader: number; host: string; port: number }
    | { event: "refused"; host: string; port: number; readers: number }
    | { event: "sent"; reader: number; messages: number }
    | { event: "overflow"; reader: number; policy: Policy; messages: number; backlog: number }
    | RelayEvent
    | ({ event: "closed"; reader: number; refused?: string } & ReaderTotals & Closed)
    | ({ event: "done" } & ServeResult)
  );

/** What was sent to one reader. */
export interface ReaderTotals {
  /** Whole messages that the kernel accepted. */
  messages: number;
  /** Bytes that it accepted. */
  bytes: number;
  /** Messages that the policy dropped, or a full queue. */
  dropped: number;
  /** How often the policy had to act. */
  overflows: number;
  /** From its connection to its end. */
  seconds: number;
}

/** All of a server's life; `dropped` counts those, too, whose reader was away. */
export interface ServeResult extends ReaderTotals {
  /** Readers that came. */
  readers: number;
}

/** What one connection came to, and how it ended. */
export interface Stay extends Omit<ReaderTotals, "seconds"> {
  closed: Closed;
  /** Why it was not let in. */
  refused?: string;
}

/** What feeds the readers of a server. */
export interface Feeder {
  /** Settles when it has no more to give, or has been stopped; connections may still end. */
  readonly done: Promise<void>;
  /** Messages that were dropped while their readers were away. */
  readonly droppedAway?: number;
  /** Begins what does not wait for a reader. */
  start?(): Promise<void>;
  /** Feeds a connection until it ends, and closes it. */
  feed(connection: Connection, reader: number): Promise<Stay>;
  /** Hangs up on all. May be called twice. */
  stop(): void;
}

export interface Server {
  readonly address: Address;
  /** Settles when the server has ended: by its duration, by the signal, or by `stop`. */
  readonly done: Promise<ServeResult>;
  /** Hangs up on all readers, and ends. */
  stop(): Promise<ServeResult>;
}

/** Listens, and feeds whoever connects. Rejects with a NetError when it cannot listen. */
export async function serve(options: ServeOptions): Promise<Server> {
  const { host = "127.0.0.1", port = 8000, sendBuffer, signal, maxReaders = Infinity } = options;
  if (sendBuffer !== undefined && typeof libc === "string") {
    throw new Error(`cannot set the send buffer to ${sendBuffer}: ${libc}`);
  }
  const net = options.adapter ?? await loadAdapter();
  const startMs = performance.now();
  const seconds = () => (performance.now() - startMs) / 1000;
  const emit = options.onEvent ?? (() => {});
  const total: ServeResult = {
    readers: 0,
    messages: 0,
    bytes: 0,
    dropped: 0,
    overflows: 0,
    seconds: 0,
  };
  const feeder = createFeeder(options, (event) => emit({ time: seconds(), ...event }));
  const done = Promise.withResolvers<ServeResult>();
  let connections = 0;
  let ending = false;
  let listening = true;
  let failure: { error: unknown } | undefined;

  const finish = (): void => {
    if (listening || connections > 0) return;
    signal?.removeEventListener("abort", stop);
    if (failure !== undefined) return done.reject(failure.error);
    total.seconds = seconds();
    total.dropped += feeder.droppedAway ?? 0;
    emit({ event: "done", time: total.seconds, ...total });
    done.resolve(total);
  };
  const end = async (): Promise<void> => {
    if (ending) return;
    ending = true;
    await listener.close();
    listening = false;
    finish();
  };
  const stop = () => feeder.stop();

  const welcome = async (connection: Connection): Promise<void> => {
    if (ending || connections >= maxReaders) {
      connection.close();
      emit({ event: "refused", time: seconds(), ...connection.remote, readers: connections });
      return;
    }
    connections++;
    const reader = ++total.readers;
    const connectedAt = seconds();
    emit({ event: "reader", time: connectedAt, reader, ...connection.remote });
    if (sendBuffer !== undefined && connection.fd !== undefined) {
      setBufferSize(connection.fd, "send", sendBuffer);
    }
    const { closed, refused, ...fed } = await feeder.feed(connection, reader);
    connections--;
    const totals: ReaderTotals = { ...fed, seconds: seconds() - connectedAt };
    total.messages += totals.messages;
    total.bytes += totals.bytes;
    total.dropped += totals.dropped;
    total.overflows += totals.overflows;
    const why = refused === undefined ? {} : { refused };
    emit({ event: "closed", time: seconds(), reader, ...totals, ...closed, ...why });
    finish();
  };

  const listener = await net.listen({
    host,
    port,
    onConnection: (connection) => void welcome(connection),
  });
  emit({ event: "listening", time: seconds(), ...listener.address });
  feeder.done.then(end, (error) => {
    failure = { error };
    feeder.stop();
    void end();
  });
  if (signal?.aborted) stop();
  else signal?.addEventListener("abort", stop);
  await feeder.start?.();
  return {
    address: listener.address,
    done: done.promise,
    stop() {
      stop();
      return done.promise;
    },
  };
}
