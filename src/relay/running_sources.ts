/** The sources of a relay: each fills a stream, from where an earlier process has left it. */
import type { RelayOptions } from "./relay_options.ts";
import type { Source, SourceEvent } from "../source/source.ts";
import type { Stream } from "./stream.ts";

export class RunningSources {
  /** Of a source that connects: whether it is; undefined where there is no connection to be lost. */
  connected: boolean | undefined;
  readonly #options: RelayOptions;
  readonly #onEnd: () => void;
  readonly #onError: (error: unknown) => void;
  readonly #sources: Set<Source> = new Set();
  #running = 0;
  #stopped = false;

  /** `onEnd`: a source has ended. `onError`: one has failed. */
  constructor(options: RelayOptions, onEnd: () => void, onError: (error: unknown) => void) {
    this.#options = options;
    this.#onEnd = onEnd;
    this.#onError = onError;
  }

  /** Whether one was started. */
  get any(): boolean {
    return this.#sources.size > 0;
  }

  /** Whether all that were started have ended. */
  get allEnded(): boolean {
    return this.#running === 0;
  }

  /** Starts a source for a stream, unless the relay has none or is ending. */
  start(stream: Stream): void {
    if (this.#stopped || this.#options.sourceless) return;
    void this.#run(this.#options.source(), stream);
  }

  async #run(source: Source, stream: Stream): Promise<void> {
    this.#sources.add(source);
    this.#running++;
    const { endsAfterMs } = this.#options;
    const timer = endsAfterMs === undefined
      ? undefined
      : setTimeout(() => this.#stop(source), endsAfterMs);
    const sink = {
      push: (bytes: Uint8Array, messages: number, position: number) =>
        stream.push(bytes, messages, position),
      note: (what: SourceEvent) => {
        if (source.connects) this.connected = what.event === "connected";
        this.#note(stream, what);
      },
    };
    if (source.connects) this.connected = false;
    try {
      await source.run(sink, stream.position, stream.originStream);
    } catch (error) {
      this.#onError(error);
    }
    this.connected = undefined;
    clearTimeout(timer);
    this.#running--;
    this.#onEnd();
  }

  #note(stream: Stream, what: SourceEvent): void {
    const { onEvent } = this.#options;
    onEvent({ event: "source", what });
    if (what.event !== "connected" && what.event !== "opened") return;
    if (what.stream === undefined) return;
    const before = stream.originStream;
    const replaced = stream.follow(what.stream, what.position ?? 0);
    if (replaced) onEvent({ event: "source-replaced", before: before!, now: what.stream });
  }

  /** Tells the shared source the position up to which no reader needs its bytes again. */
  acknowledge(stream: Stream | undefined): void {
    const safe = stream?.safePosition;
    if (safe === undefined) return;
    try {
      for (const source of this.#sources) source.acknowledge?.(safe);
    } catch (error) {
      this.#onError(error);
    }
  }

  /** Ends all, and starts no more. */
  stop(): void {
    this.#stopped = true;
    for (const source of this.#sources) this.#stop(source);
  }

  #stop(source: Source): void {
    try {
      source.stop();
    } catch (error) {
      this.#onError(error);
    }
  }
}
