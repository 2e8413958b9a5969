/** A server's figures as metrics for Prometheus. */
import process from "node:process";
import { runtime } from "../kernel/runtime.ts";
import type { LogFigures, ReaderFigures, ServerFigures } from "../relay/figures.ts";
import type { ServeEvent } from "../relay/serve_event.ts";
import type { Metric, Sample } from "./exposition.ts";

/** More readers than this are one series, and so are more streams: thousands would make scrapes slow. */
const MOST_SERIES = 1000;
/** The label of those. No reader can have this name: see `isReaderName`. */
const OTHERS = "(others)";

/** The events that are counted: those that say something about how the server does. */
const COUNTED = [
  ...["reader", "refused", "overflow", "spilling", "caught-up", "queue-full", "queue-room"],
  ...["gap", "lost", "dead", "protocol"],
] as const satisfies readonly ServeEvent["event"][];
const REASONS = ["local", "eof", "reset", "error"] as const;

/** Counts a server's events. */
export class EventCounts {
  readonly events: Map<string, number> = new Map(COUNTED.map((name) => [name, 0]));
  /** Connections that have ended, by `Closed.reason`. */
  readonly reasons: Map<string, number> = new Map(REASONS.map((reason) => [reason, 0]));

  add(event: ServeEvent): void {
    const count = this.events.get(event.event);
    if (count !== undefined) this.events.set(event.event, count + 1);
    if (event.event !== "closed") return;
    this.reasons.set(event.reason, this.reasons.get(event.reason)! + 1);
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
    byLabel("speedlimit_events_total", "What has happened, by kind of event.", {
      event: counts.events,
    }),
    byLabel("speedlimit_connections_closed_total", "Connections that ended, by reason.", {
      reason: counts.reasons,
    }),
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

/** A counter with one label: its name, and the counts by its values. */
function byLabel(
  name: string,
  help: string,
  label: Record<string, ReadonlyMap<string, number>>,
): Metric {
  const samples = Object.entries(label).flatMap(([key, counts]) =>
    [...counts].map(([text, value]) => ({ labels: { [key]: text }, value }))
  );
  return { name, help, type: "counter", samples };
}

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
