/** Chooses how a server sends its messages: a plain flood per reader, or a relay that can buffer. */
import { EMPTY_SOURCE } from "../source/empty_source.ts";
import { FloodSource, type NumberedMessage } from "../source/flood_source.ts";
import { Floods } from "./floods.ts";
import { createFramer } from "../message/frame.ts";
import { ARTICLE_MESSAGE, textMessage } from "../message/message.ts";
import { hasDeadline } from "../send/deadlines.ts";
import { isFloodPolicy, policyOf } from "../send/overflow.ts";
import { Ticker } from "../send/pacer.ts";
import { Relay } from "./relay.ts";
import { DEFAULT_NUMBERED_SIZE } from "../message/numbered.ts";
import type { Feeder } from "./feeder.ts";
import type { UntimedEvent } from "./serve_event.ts";
import type { ServeOptions } from "./serve_options.ts";

/** Default high watermark with spill: the backlog in memory above which messages go to disk. Bytes. */
export const SPILL_BACKLOG = 8 << 20;
const DEFAULT_RATE = 1e6;
/** Default limit for a reader's handshake. */
const HANDSHAKE_TIMEOUT_MS = 10_000;
/** Default limit for what all streams take in memory; bytes. */
const MEMORY = 64 << 20;
/** Default limit for the names of readers. */
const MOST_NAMES = 1000;
/** The default with spill: numbered messages show whether all arrived, in order. */
const NUMBERED: NumberedMessage = { numbered: true, size: DEFAULT_NUMBERED_SIZE };

/**
 * The article's floods, which have no cost per message, if no option needs messages to be buffered;
 * otherwise a relay. Throws an Error for options that exclude each other.
 */
export function createFeeder(
  options: ServeOptions,
  emit: (event: UntimedEvent) => void,
): Feeder {
  const { overflow: policy = "close", queue, source, rate = DEFAULT_RATE, durationMs } = options;
  const spills = !isFloodPolicy(policy);
  const { message = spills ? NUMBERED : textMessage(ARTICLE_MESSAGE) } = options;
  if (spills && queue === undefined) {
    throw new Error(`overflow ${policy} needs a queue, and none was given`);
  }
  const needsRelay = queue !== undefined || source !== undefined || options.ack !== undefined ||
    options.readerId !== undefined || options.zeroWindowTimeoutMs !== undefined;
  if (options.durable === true && !spills) {
    throw new Error("durable messages need overflow spill, and a queue");
  }
  const { after, writeDeadlineMs } = options;
  const bound = options.backlog ?? (spills ? SPILL_BACKLOG : hasDeadline(options) ? Infinity : 0);
  // A flood that drops messages counts them, and does not know which.
  const counts = !("numbered" in message) &&
    (message.constant || policyOf(policy).drops === undefined);
  if (isFloodPolicy(policy) && !needsRelay && counts) {
    return new Floods({
      message,
      rate,
      policy,
      ...{ bound, after, writeDeadlineMs },
      unread: options.unread,
      onUnread: (reader, event) => emit({ reader, ...event }),
      replies: options.replies ?? "ignore",
      durationMs,
      sentEveryMs: options.sentEveryMs,
      onSent: (reader, messages) => emit({ event: "sent", reader, messages }),
      onOverflow: (reader, messages, backlog, passed) =>
        emit({
          ...{ event: "overflow", reader, policy, messages, backlog },
          ...(passed === undefined ? {} : { passed }),
        }),
    });
  }
  const ticker = new Ticker();
  const frame = source === undefined
    ? "numbered" in message ? { kind: "fixed", size: message.size } as const : message.frame
    : options.frame ?? { kind: "none" } as const;
  const framer = createFramer(frame);
  return new Relay({
    source: () => source ?? new FloodSource({ message, rate, durationMs, ticker }),
    shared: source !== undefined,
    sourceless: source === EMPTY_SOURCE,
    replayable: source?.replayable ?? true,
    endsAfterMs: source === undefined ? undefined : durationMs,
    floor: (bytes, offset) => framer.floor(bytes, offset),
    ...{ policy, bound, after, writeDeadlineMs },
    resumeBelow: options.resumeBelow ?? bound / 2,
    ack: options.ack,
    queue: spills ? queue : undefined,
    whenFull: options.whenFull ?? "block",
    durable: options.durable ?? false,
    retainMs: options.retainMs,
    memory: options.memory ?? Math.max(MEMORY, bound === Infinity ? 0 : 4 * bound),
    start: options.start ?? "now",
    mostNames: options.maxReaderNames ?? MOST_NAMES,
    readerId: options.readerId ?? "single",
    handshakeTimeoutMs: options.handshakeTimeoutMs ?? HANDSHAKE_TIMEOUT_MS,
    drainReplies: options.replies !== "ignore",
    unread: options.unread,
    zeroWindowTimeoutMs: options.zeroWindowTimeoutMs ?? Infinity,
    ticker,
    sentEveryMs: options.sentEveryMs,
    onEvent: emit,
  });
}
