/** A connected reader without a socket: its flood and its meter say what a test says. */
import type { Closed } from "../src/net/net.ts";
import type { Drained, QueueSource, Reading } from "../src/measure/meter.ts";
import type { MeasuredReader } from "../src/measure/trial_watch.ts";

/** Bytes, and ms. */
export interface Made {
  nowMs: number;
  offered: number;
  accepted: number;
  drained: number;
  receiveQueue: number | undefined;
  sendQueue: number;
  /** Replies that nobody has read. */
  replies: number;
  window: number;
  /** How long the window was closed; microseconds. */
  limitedUs: number;
  /** The kernel has no room. */
  blocked: boolean;
  queueSource: QueueSource;
  /** The kernel has no such connection any more. */
  gone: boolean;
}

export const MESSAGE_SIZE = 100;

export class MadeReader {
  readonly made: Made = {
    ...{ nowMs: 1000, offered: 0, accepted: 0, drained: 0, receiveQueue: 0, sendQueue: 0 },
    ...{ replies: 0, window: 65_536, limitedUs: 0, blocked: false },
    ...{ queueSource: "socket", gone: false },
  };
  /** What it was asked: `read`, `readDrained`, `forget`, `assumeEmpty`, and rates that it was to send at. */
  readonly asked: (string | number)[] = [];
  readonly reader: MeasuredReader;
  readonly #ends = Promise.withResolvers<Closed>();

  /** `next` is called before each reading of the meter. */
  constructor(next: (made: Made) => void = () => {}) {
    const { made, asked } = this;
    const full = (): Reading | undefined => {
      asked.push("read");
      next(made);
      const { nowMs, drained, receiveQueue, sendQueue, replies, window, limitedUs } = made;
      const info = {
        sendWindow: window,
        receiveWindowLimitedUs: limitedUs,
        sendBufferLimitedUs: 0,
      };
      const near = { sendQueue, receiveQueue: replies, info } as unknown as Reading["near"];
      return made.gone ? undefined : { nowMs, drained, receiveQueue, near, far: undefined };
    };
    const meter = {
      get queueSource() {
        return made.queueSource;
      },
      read: full,
      readDrained(): Drained | Reading | undefined {
        if (made.queueSource !== "socket") return full();
        asked.push("readDrained");
        next(made);
        const { nowMs, drained, receiveQueue } = made;
        return made.gone ? undefined : { nowMs, drained, receiveQueue };
      },
      assumeEmpty: () => void asked.push("assumeEmpty"),
    };
    const flood = {
      message: { size: MESSAGE_SIZE, longest: MESSAGE_SIZE },
      connection: {
        get blockedSince() {
          return made.blocked ? 0 : undefined;
        },
      },
      get accepted() {
        return made.accepted;
      },
      done: this.#ends.promise,
      offeredAt: () => made.offered,
      forget: () => void asked.push("forget"),
      startBytes: (rate: number) => void asked.push(rate),
    };
    this.reader = { flood, meter } as unknown as MeasuredReader;
  }

  /** Ends its connection. */
  end(closed: Closed): void {
    this.#ends.resolve(closed);
  }
}
