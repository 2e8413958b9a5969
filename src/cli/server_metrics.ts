/** A server's figures as metrics for Prometheus. */
import process from "node:process";
import { runtime } from "../kernel/runtime.ts";
import type { LogFigures, ReaderFigures, ServerFigures } from "../relay/figures.ts";
import type { Closed } from "../net/net.ts";
import type { Rejection } from "../relay/rejection.ts";
import type { ServeEvent } from "../relay/serve_event.ts";
import type { SourceEvent } from "../source/source.ts";
import type { Metric, Sample } from "./exposition.ts";

/** More readers than this are one series, and so are more streams: thousands would make scrapes slow. */
const MOST_SERIES = 1000;
/** The label of those. No reader can have this name: see `isReaderName`. */
const OTHERS = "(others)";

/** How often each of these has happened. All are there from the beginning: an alert needs a series at 0. */
type Counts<Name extends string> = Record<Name, number>;
type Refused = (ServeEvent & { event: "refused" })["why"] | Rejection;

/** Counts a server's events. The types see to it that none is left out. */
export class EventCounts {
  /** By `event`. Not `sent`, which is part of --log, and as frequent as messages. */
  readonly events: Counts<Exclude<ServeEvent["event"], "sent" | "source">> = {
    ...{ listening: 0, connecting: 0, unreachable: 0 },
    ...{ reader: 0, named: 0, refused: 0, "accept-failed": 0, closed: 0, done: 0 },
    ...{ overflow: 0, spilling: 0, "caught-up": 0, "queue-full": 0, "queue-room": 0 },
    ...{ held: 0, released: 0, gap: 0, lost: 0, dead: 0, protocol: 0, "source-replaced": 0 },
  };
  /** Those of sources, by their `event`. */
  readonly source: Counts<SourceEvent["event"]> = {
    ...{ connected: 0, opened: 0, disconnected: 0, retrying: 0, "bad-frame": 0, ended: 0 },
  };
  /** Connections that have ended, by `reason`. */
  readonly reasons: Counts<Closed["reason"]> = { local: 0, eof: 0, reset: 0, error: 0 };
  /** Connections that were not served, by `why`. */
  readonly refused: Counts<Refused> = {
    ...{ allow: 0, readers: 0, end: 0 },
    ...{ handshake: 0, connected: 0, stream: 0, names: 0, queue: 0 },
  };

  add(event: ServeEvent): void {
    if (event.event === "sent") return;
    if (event.event === "source") {
      this.source[event.what.event]++;
      return;
    }
    this.events[event.event]++;
    if (event.event === "closed") this.reasons[event.reason]++;
    if ("why" in event && (event.event === "closed" || event.event === "refused")) {
      this.refused[event.why]++;
    }
  }
}

interface ReaderMetric extends Omit<Metric, "samples"> {
  value: (reader: ReaderFigures) => number;
  /** How those of many readers become one; default: their sum. */
  largest?: boolean;
}

const READER_METRICS: readonly ReaderMetric[] = [
  {
    name: "speedlimit_reader_connected",
    help: "Whether the reader is connected.",
    type: "gauge",
    value: ({ connected }) => Number(connected),
  },
  {
    name: "speedlimit_reader_accepted_bytes_total",
    help: "Bytes that the server's kernel has accepted for the reader.",
    type: "counter",
    value: ({ acceptedBytes }) => acceptedBytes,
  },
  {
    name: "speedlimit_reader_delivered_offset_bytes",
    help: "Offset in the reader's stream up to which everything is delivered.",
    type: "gauge",
    value: ({ deliveredOffset }) => deliveredOffset,
  },
  {
    name: "speedlimit_reader_lag_bytes",
    help: "Bytes that are not delivered to the reader yet, in memory and on disk.",
    type: "gauge",
    value: ({ lagBytes }) => lagBytes,
  },
  {
    name: "speedlimit_reader_lag_messages",
    help: "Messages that are not delivered to the reader yet. May be an estimate.",
    type: "gauge",
    value: ({ lagMessages }) => lagMessages,
  },
  {
    name: "speedlimit_reader_lag_seconds",
    help: "Age of the oldest message that is not delivered to the reader; NaN: not known.",
    type: "gauge",
    value: ({ lagSeconds }) => lagSeconds,
    largest: true,
  },
  {
    name: "speedlimit_reader_gaps_total",
    help: "How often bytes were skipped that were neither in memory nor on disk.",
    type: "counter",
    value: ({ gaps }) => gaps,
  },
  {
    name: "speedlimit_reader_dropped_messages_total",
    help: "Messages that were dropped and not delivered to the reader.",
    type: "counter",
    value: ({ dropped }) => dropped,
  },
  {
    name: "speedlimit_reader_duplicates_avoided_total",
    help: "Messages that came again from the source and were not sent again.",
    type: "counter",
    value: ({ duplicatesAvoided }) => duplicatesAvoided,
  },
];

interface LogMetric extends Omit<ReaderMetric, "value"> {
  value: (log: LogFigures) => number;
}

const LOG_METRICS: readonly LogMetric[] = [
  {
    name: "speedlimit_log_bytes",
    help: "What the stream takes on disk.",
    type: "gauge",
    value: ({ bytes }) => bytes,
  },
  {
    name: "speedlimit_log_segments",
    help: "Files of the stream on disk.",
    type: "gauge",
    value: ({ segments }) => segments,
  },
  {
    name: "speedlimit_log_oldest_seconds",
    help: "Age of the oldest message of the stream on disk.",
    type: "gauge",
    value: ({ oldestSeconds }) => oldestSeconds,
    largest: true,
  },
];

/** All metrics; `figures` undefined: the server does not listen yet. */
export function serverMetrics(counts: EventCounts, figures: ServerFigures | undefined): Metric[] {
  return [
    ...processMetrics(),
    counters("speedlimit_events_total", "What has happened, by kind of event.", [
      ...samplesBy("event", counts.events),
      ...samplesBy("what", counts.source, { event: "source" }),
    ]),
    counters(
      "speedlimit_connections_closed_total",
      "Connections that ended, by reason.",
      samplesBy("reason", counts.reasons),
    ),
    counters(
      "speedlimit_connections_refused_total",
      "Connections that were not served, by why.",
      samplesBy("why", counts.refused),
    ),
    ...(figures === undefined ? [] : figuresMetrics(figures)),
  ];
}

function processMetrics(): Metric[] {
  const { user, system } = process.cpuUsage();
  return [
    gauge("speedlimit_info", "The runtime of the server.", 1, { runtime }),
    gauge(
      "process_start_time_seconds",
      "When the process started, in seconds since 1970.",
      Math.round(Date.now() / 1000 - process.uptime()),
    ),
    counter("process_cpu_seconds_total", "CPU time of the process.", (user + system) / 1e6),
    gauge(
      "process_resident_memory_bytes",
      "Memory of the process.",
      process.memoryUsage().rss,
    ),
  ];
}

function figuresMetrics(figures: ServerFigures): Metric[] {
  const { readers, logs, memoryBytes, diskFreeBytes, sync, sourceConnected } = figures;
  const connected = readers.filter((reader) => reader.connected).length;
  return [
    gauge("speedlimit_readers", "Readers that the server knows.", readers.length),
    gauge("speedlimit_readers_connected", "Readers that are connected.", connected),
    ...READER_METRICS.map((metric) =>
      bounded(metric, readers, (reader) => ({ reader: reader.name }), { reader: OTHERS })
    ),
    ...LOG_METRICS.map((metric) =>
      bounded(metric, logs, ({ stream }) => ({ stream }), { stream: OTHERS })
    ),
    gauge("speedlimit_memory_bytes", "Messages that the server holds in memory.", memoryBytes),
    ...(diskFreeBytes === undefined
      ? []
      : [gauge("speedlimit_disk_free_bytes", "Free space for messages on disk.", diskFreeBytes)]),
    ...(sync === undefined ? [] : [
      counter("speedlimit_syncs_total", "Writes that made the disk safe.", sync.count),
      counter("speedlimit_sync_seconds_total", "Time that they took.", sync.seconds),
      gauge("speedlimit_sync_longest_seconds", "The longest of them.", sync.longestSeconds),
    ]),
    ...(sourceConnected === undefined ? [] : [
      gauge(
        "speedlimit_source_connected",
        "Whether the source is connected.",
        Number(sourceConnected),
      ),
    ]),
  ];
}

const single = (type: Metric["type"]) =>
(
  name: string,
  help: string,
  value: number,
  labels: Record<string, string> = {},
): Metric => ({ name, help, type, samples: [{ labels, value }] });
const gauge = single("gauge");
const counter = single("counter");

const counters = (name: string, help: string, samples: Sample[]): Metric => ({
  name,
  help,
  type: "counter",
  samples,
});

/** Counts by a label, which follows those that all of them have. */
const samplesBy = (
  label: string,
  counts: Counts<string>,
  common: Record<string, string> = {},
): Sample[] =>
  Object.entries(counts).map(([text, value]) => ({ labels: { ...common, [label]: text }, value }));

/** One series for each item, but only one for all those above `MOST_SERIES`. */
function bounded<Item>(
  { value, largest = false, ...metric }: Omit<ReaderMetric, "value"> & {
    value: (item: Item) => number;
  },
  items: readonly Item[],
  labelsOf: (item: Item) => Record<string, string>,
  others: Record<string, string>,
): Metric {
  const samples: Sample[] = items.slice(0, MOST_SERIES).map((item) => ({
    labels: labelsOf(item),
    value: value(item),
  }));
  if (items.length > MOST_SERIES) {
    const values = items.slice(MOST_SERIES).map(value);
    const merged = largest
      ? values.reduce((most, each) => each > most || Number.isNaN(most) ? each : most)
      : values.reduce((sum, each) => sum + each);
    samples.push({ labels: others, value: merged });
  }
  return { ...metric, samples };
}
