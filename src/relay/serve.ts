/**
 * Room: the server: sends messages to many readers and buffers them for readers that are slow.
 * In: `ServeOptions`: a source or a flood, an overflow policy, a queue.
 * Out: each reader's messages in order; `ServeEvent`s, and totals at the end.
 */
import type { Address } from "../kernel/address.ts";
import { libc } from "../kernel/libc.ts";
import { setBufferSize } from "../kernel/socket_calls.ts";
import { AcceptFailures } from "../net/accept_failures.ts";
import { AllowList } from "../net/allow_list.ts";
import { loadAdapter } from "../net/load.ts";
import type { Connection, Listener } from "../net/net.ts";
import { SilentPeers } from "../net/silent_peers.ts";
import { createFeeder } from "./choose_feeder.ts";
import { Dialer } from "./dialer.ts";
import type { ConnectionTotals, ReaderTotals } from "./feeder.ts";
import type { ServerFigures } from "./figures.ts";
import type { ServeEvent, ServeResult } from "./serve_event.ts";
import {
  currentOptions,
  DEFAULT_DEAD_PEER_TIMEOUT_MS,
  type GivenServeOptions,
} from "./serve_options.ts";

export interface Server {
  readonly address: Address;
  /**
   * Settles when the server has ended: after its duration, by the signal, or by `stop`. Rejects where
   * something failed that it cannot do without: its source, its queue, or an event's handler.
   */
  readonly done: Promise<ServeResult>;
  /** Figures as of now. */
  figures?(): ServerFigures;
  /**
   * Ends all connections, within 1 s in order where what readers send is read, and then the server;
   * returns `done`.
   */
  stop(): Promise<ServeResult>;
}

/** A connected reader, and the first error that ends its connection. */
interface OpenReader {
  connection: Connection;
  failure?: unknown;
}

/**
 * Listens, and sends messages to every reader that connects. Rejects with a NetError if it cannot
 * listen, and with an Error if the queue cannot be opened.
 */
export async function serve(given: GivenServeOptions): Promise<Server> {
  const options = currentOptions(given);
  const { host = "127.0.0.1", port = 8000, sendBuffer, signal, maxReaders = Infinity } = options;
  if (sendBuffer !== undefined && typeof libc === "string") {
    throw new Error(`cannot set the send buffer to ${sendBuffer}: ${libc}`);
  }
  const { deadPeerTimeoutMs = DEFAULT_DEAD_PEER_TIMEOUT_MS } = options;
  if ((options.deadPeerTimeoutMs ?? Infinity) < Infinity && typeof libc === "string") {
    throw new Error(`cannot tell whether the host of a reader still answers: ${libc}`);
  }
  const allowed = allowList(options.allow);
  const silentPeers = new SilentPeers(deadPeerTimeoutMs);
  const net = options.adapter ?? await loadAdapter();
  const startMs = performance.now();
  const seconds = () => (performance.now() - startMs) / 1000;
  const total: ServeResult = {
    readers: 0,
    messages: 0,
    bytes: 0,
    dropped: 0,
    overflows: 0,
    seconds: 0,
  };
  const readers = new Map<number, OpenReader>();
  const done = Promise.withResolvers<ServeResult>();
  // Whoever waits for it gets the error; it is no error that nobody waits.
  done.promise.catch(() => {});
  // A reader may connect, and end the server, before it is known here.
  let listener: Listener | undefined = undefined;
  let connections = 0;
  let ending = false;
  let listening = true;
  let failure: { error: unknown } | undefined;

  /** Never throws: an error of the handler ends the event's reader, or else the server. */
  const emit = (event: ServeEvent): void => {
    const onError = (error: unknown) => {
      const reader = "reader" in event ? readers.get(event.reader) : undefined;
      if (reader === undefined) return fail(error);
      reader.failure ??= error;
      reader.connection.close();
    };
    try {
      const handling: unknown = options.onEvent?.(event);
      if (handling instanceof Promise) handling.catch(onError);
    } catch (error) {
      onError(error);
    }
  };
  const feeder = createFeeder(options, (event) => emit({ time: seconds(), ...event }));

  const failures = new AcceptFailures(({ errno: error, count }) =>
    emit({ event: "accept-failed", time: seconds(), error, count })
  );

  const finish = (): void => {
    if (listening || connections > 0) return;
    signal?.removeEventListener("abort", stop);
    total.seconds = seconds();
    total.dropped += feeder.droppedWhileAbsent ?? 0;
    if (failure === undefined) emit({ event: "done", time: total.seconds, ...total });
    // Set by the handler of that event, at the latest.
    const failed = failure as { error: unknown } | undefined;
    if (failed !== undefined) done.reject(failed.error);
    else done.resolve(total);
  };
  const end = async (): Promise<void> => {
    if (ending) return;
    ending = true;
    try {
      await listener?.close();
    } catch (error) {
      failure ??= { error };
    }
    failures.stop();
    listening = false;
    finish();
  };
  const fail = (error: unknown): void => {
    failure ??= { error };
    feeder.stop();
    void end();
  };
  const stop = () => feeder.stop();

  const serveReader = async (connection: Connection): Promise<void> => {
    if (failures.refuses(connection)) return;
    const { remote } = connection;
    const refusal = allowed?.allows(remote.host) === false
      ? "allow"
      : ending
      ? "end"
      : connections >= maxReaders
      ? "readers"
      : undefined;
    if (refusal !== undefined) {
      connection.close();
      const at = { time: seconds(), ...remote };
      emit({ event: "refused", ...at, why: refusal, readers: connections });
      return;
    }
    connections++;
    const reader = ++total.readers;
    const open: OpenReader = { connection };
    readers.set(reader, open);
    const connectedAt = seconds();
    emit({ event: "reader", time: connectedAt, reader, ...remote });
    const stopWatching = silentPeers.watch(connection, (silentMs) => {
      emit({ event: "dead", time: seconds(), reader, why: "silent", seconds: silentMs / 1000 });
      connection.reset();
    });
    const { closed, name, refused, why: rejection, replacedBy, ...sent } = await feed(open, reader);
    stopWatching();
    readers.delete(reader);
    connections--;
    const totals: ReaderTotals = { ...sent, seconds: seconds() - connectedAt };
    total.messages += totals.messages;
    total.bytes += totals.bytes;
    total.dropped += totals.dropped;
    total.overflows += totals.overflows;
    const why = "failure" in open
      ? { error: messageOf(open.failure) }
      : refused !== undefined
      ? { refused, ...(rejection === undefined ? {} : { why: rejection }) }
      : replacedBy !== undefined
      ? { replacedBy }
      : {};
    const who = name === undefined ? { reader } : { reader, name };
    emit({ event: "closed", time: seconds(), ...who, ...totals, ...closed, ...why });
    finish();
  };

  /** Sends messages until the connection has ended; never rejects. */
  const feed = async (open: OpenReader, reader: number): Promise<ConnectionTotals> => {
    const { connection } = open;
    try {
      if (!("failure" in open)) {
        if (sendBuffer !== undefined && connection.fd !== undefined) {
          setBufferSize(connection.fd, "send", sendBuffer);
        }
        return await feeder.feed(connection, reader);
      }
    } catch (error) {
      open.failure ??= error;
    }
    connection.close();
    return { messages: 0, bytes: 0, dropped: 0, overflows: 0, closed: await connection.closed };
  };

  const onConnection = (connection: Connection) => void serveReader(connection);
  const { connect } = options;
  if (connect === undefined) {
    const onAcceptError = (errno: string) => failures.failed(errno);
    listener = await net.listen({ host, port, onConnection, onAcceptError });
    emit({ event: "listening", time: seconds(), ...listener.address });
  } else {
    emit({ event: "connecting", time: seconds(), ...connect });
    listener = new Dialer({
      ...{ net, to: connect, onConnection, onError: fail },
      onFailure: ({ code: error }, inMs) =>
        emit({ event: "unreachable", time: seconds(), ...connect, error, inMs }),
    });
  }
  feeder.done.then(end, fail);
  if (signal?.aborted) stop();
  else signal?.addEventListener("abort", stop);
  try {
    await feeder.start?.();
  } catch (error) {
    fail(error);
    await done.promise;
  }
  return {
    address: listener.address,
    done: done.promise,
    figures: () => feeder.figures(),
    stop() {
      stop();
      return done.promise;
    },
  };
}

function allowList(ranges: readonly string[] | undefined): AllowList | undefined {
  try {
    return ranges === undefined ? undefined : new AllowList(ranges);
  } catch (error) {
    throw new RangeError(`allow ${messageOf(error)}`, { cause: error });
  }
}

const messageOf = (error: unknown): string =>
  error instanceof Error ? error.message : String(error);
