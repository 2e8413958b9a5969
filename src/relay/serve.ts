/**
 * Room: the server: sends messages to many readers and buffers them for readers that are slow.
 * In: `ServeOptions`: a source or a flood, an overflow policy, a queue.
 * Out: each reader's messages in order; `ServeEvent`s, and totals at the end.
 */
import type { Address } from "../kernel/address.ts";
import { libc } from "../kernel/libc.ts";
import { setBufferSize } from "../kernel/socket_calls.ts";
import { loadAdapter } from "../net/load.ts";
import type { Connection } from "../net/net.ts";
import { createFeeder } from "./choose_feeder.ts";
import type { ReaderTotals } from "./feeder.ts";
import type { ServeResult } from "./serve_event.ts";
import { currentOptions, type GivenServeOptions } from "./serve_options.ts";

export interface Server {
  readonly address: Address;
  /** Settles when the server has ended: after its duration, by the signal, or by `stop`. */
  readonly done: Promise<ServeResult>;
  /** Closes all connections and ends the server. */
  stop(): Promise<ServeResult>;
}

/** Listens, and sends messages to every reader that connects. Rejects with a NetError if it cannot listen. */
export async function serve(given: GivenServeOptions): Promise<Server> {
  const options = currentOptions(given);
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
    total.dropped += feeder.droppedWhileAbsent ?? 0;
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

  const serveReader = async (connection: Connection): Promise<void> => {
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
    const { closed, refused, ...sent } = await feeder.feed(connection, reader);
    connections--;
    const totals: ReaderTotals = { ...sent, seconds: seconds() - connectedAt };
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
    onConnection: (connection) => void serveReader(connection),
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
