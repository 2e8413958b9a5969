/** Like the article's server, which forks for each reader: every connection gets its own flood. */
import { Flood, type Replies } from "../send/flood.ts";
import type { Message } from "../message/message.ts";
import type { Connection } from "../net/net.ts";
import type { Deadlines, Passed } from "../send/deadlines.ts";
import type { FloodPolicy } from "../send/overflow.ts";
import { Ticker } from "../send/pacer.ts";
import type { Unread, UnreadEvent } from "../send/unread.ts";
import type { ConnectionTotals, Feeder } from "./feeder.ts";
import type { ServerFigures } from "./figures.ts";

export interface FloodsOptions extends Deadlines {
  message: Message;
  /** Messages a second to each reader; Infinity: as fast as the kernel accepts them. */
  rate: number;
  policy: FloodPolicy;
  /** Backlog in bytes above which the policy acts. */
  bound: number;
  /** How much may lie unread at a reader; default: as much as the kernel accepts. */
  unread?: Unread | undefined;
  onUnread: (reader: number, event: UnreadEvent) => void;
  replies: Replies;
  /** How long messages are generated, from the first reader's connect; ms, default no end. */
  durationMs?: number | undefined;
  /** How often `onSent` is called; ms, default never. */
  sentEveryMs?: number | undefined;
  onSent: (reader: number, messages: number) => void;
  onOverflow: (
    reader: number,
    messages: number,
    backlog: number,
    passed: Passed | undefined,
  ) => void;
}

export class Floods implements Feeder {
  readonly done: Promise<void>;
  readonly #options: FloodsOptions;
  readonly #ticker = new Ticker();
  /** With the numbers of their readers. */
  readonly #floods = new Map<Flood, number>();
  readonly #resolve: () => void;
  #endsAtMs = Infinity;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(options: FloodsOptions) {
    this.#options = options;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.done = promise;
    this.#resolve = resolve;
  }

  async feed(connection: Connection, reader: number): Promise<ConnectionTotals> {
    const { message, rate, policy, bound, replies, durationMs, onOverflow } = this.#options;
    const { unread, onUnread, after, writeDeadlineMs } = this.#options;
    const startedMs = performance.now();
    if (durationMs !== undefined && this.#timer === undefined) {
      this.#endsAtMs = startedMs + durationMs;
      this.#timer = setTimeout(() => this.#finish(), durationMs);
    }
    let reportSent = () => {};
    const flood = new Flood({
      connection,
      message,
      ticker: this.#ticker,
      policy,
      bound,
      replies,
      ...(unread === undefined ? {} : { unread }),
      onUnread: (event) => onUnread(reader, event),
      ...{ after, writeDeadlineMs },
      onOverflow: (flood, passed) => {
        reportSent();
        onOverflow(reader, flood.sentMessages, flood.pendingBytes, passed);
      },
    });
    this.#floods.set(flood, reader);
    const reporting = this.#startReporting(flood, reader);
    reportSent = reporting.report;
    flood.start(rate, startedMs, this.#endsAtMs);
    const closed = await flood.done;
    reporting.stop();
    this.#floods.delete(flood);
    const { accepted: bytes, dropped, overflows } = flood;
    return { messages: flood.sentMessages, bytes, dropped, overflows, closed };
  }

  /** No memory: messages that are not sent yet are only counted. */
  figures(): ServerFigures {
    const { rate } = this.#options;
    const readers = [...this.#floods].map(([flood, reader]) => {
      // At an unlimited rate there are always more.
      const lagMessages = Number.isFinite(rate) ? flood.pendingMessages : 0;
      return {
        name: String(reader),
        connected: true,
        acceptedBytes: flood.accepted,
        deliveredOffset: flood.accepted,
        lagBytes: lagMessages === 0 ? 0 : flood.pendingBytes,
        lagMessages,
        lagSeconds: lagMessages / rate,
        gaps: 0,
        dropped: flood.dropped,
        duplicatesAvoided: 0,
      };
    });
    return { readers, logs: [], memoryBytes: 0 };
  }

  stop(): void {
    clearTimeout(this.#timer);
    for (const flood of this.#floods.keys()) flood.hangUp();
    this.#resolve();
  }

  /** Connected readers still get all messages that are due. */
  #finish(): void {
    for (const flood of this.#floods.keys()) flood.finish(this.#endsAtMs);
    this.#resolve();
  }

  #startReporting(flood: Flood, reader: number): { stop: () => void; report: () => void } {
    const { sentEveryMs, onSent } = this.#options;
    if (sentEveryMs === undefined) return { stop() {}, report() {} };
    let reported = 0;
    const report = () => {
      const messages = flood.sentMessages;
      if (messages > reported) onSent(reader, messages);
      reported = messages;
    };
    const interval = setInterval(report, sentEveryMs);
    return {
      stop() {
        clearInterval(interval);
        report();
      },
      report,
    };
  }
}
