/** serve --metrics: what Prometheus and probes are told, over HTTP by a real server. */
import { describe, test } from "node:test";
import { connect as connectSocket, createServer } from "node:net";
import { join } from "node:path";
import { assert, assertEquals, assertGreater, assertMatch, assertThrows } from "#std/assert";
import { EXPOSITION_TYPE, formatExposition } from "../src/cli/exposition.ts";
import { EventCounts, serverMetrics } from "../src/cli/server_metrics.ts";
import type { ReaderFigures } from "../src/relay/figures.ts";
import type { ServeEvent } from "../src/relay/serve_event.ts";
import { parseExposition } from "./exposition.ts";
import { type Program, run, SERVE_PERMISSIONS, start } from "./process.ts";
import { connect, json, serving, withFolder } from "./serving.ts";
import { until, within } from "./within.ts";

const READER: ReaderFigures = {
  ...{ name: "a", connected: true, acceptedBytes: 10, deliveredOffset: 7, lagBytes: 3 },
  ...{ lagMessages: 1, lagSeconds: 0.5, gaps: 0, dropped: 2, duplicatesAvoided: 4 },
};

interface Answer {
  status: number;
  headers: Record<string, string>;
  body: string;
}

/** Asks in plain HTTP/1.1, so that nothing of the answer is hidden. */
async function ask(port: number, page: string, method = "GET"): Promise<Answer> {
  const socket = connectSocket(port, "127.0.0.1");
  let text = "";
  socket.setEncoding("utf8").on("data", (chunk) => text += chunk);
  const closed = new Promise<void>((resolve, reject) => {
    socket.once("error", reject).once("close", () => resolve());
  });
  socket.write(`${method} ${page} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
  try {
    await within(`the answer to ${method} ${page}`, 5000, closed);
  } finally {
    socket.destroy();
  }
  const end = text.indexOf("\r\n\r\n");
  const [first, ...lines] = text.slice(0, end).split("\r\n");
  const headers = lines.map((line) => /^([^:]+): *(.*)$/.exec(line)!)
    .map(([, name, value]) => [name!.toLowerCase(), value!]);
  return {
    status: Number(/^HTTP\/1\.1 (\d+) /.exec(first!)![1]),
    headers: Object.fromEntries(headers),
    body: text.slice(end + 4),
  };
}

/** A server with --metrics; `port` is that of its readers, `http` that of its HTTP server. */
async function watched(
  args: readonly string[],
  use: (watched: { program: Program; port: number; http: number }) => Promise<void>,
): Promise<void> {
  const own = ["server.ts", "--port", "0", "--metrics", "0", ...json, ...args];
  const program = start(own, { permissions: SERVE_PERMISSIONS });
  try {
    const what = /"event":"metrics".*"port":(\d+)[^]*"event":"listening".*"port":(\d+)/;
    const [, http, port] = await within("its start", 10_000, program.saw(what));
    await use({ program, port: Number(port), http: Number(http) });
  } finally {
    program.kill("SIGKILL");
    await within("its end", 5000, program.ended);
  }
}

const seriesOf = async (http: number) => parseExposition((await ask(http, "/metrics")).body).series;

describe("the metrics of a server", () => {
  test("are of the format, and true", async () => {
    const args = ["--replies", "drain", "--rate", "10k/s"];
    await watched(args, async ({ port, http }) => {
      const none = await seriesOf(http);
      assertEquals(none.get("speedlimit_readers"), 0);
      assertEquals(none.get('speedlimit_events_total{event="reader"}'), 0);
      const reader = await connect(port);
      let bytes = 0;
      reader.on("data", (chunk) => bytes += chunk.length);
      await until("some messages", 5000, () => bytes > 10_000);
      const { status, headers, body } = await ask(http, "/metrics");
      assertEquals([status, headers["content-type"]], [200, EXPOSITION_TYPE]);
      assertEquals(headers["content-length"], String(new TextEncoder().encode(body).length));
      const { series, types } = parseExposition(body);
      assertEquals(types.get("speedlimit_reader_accepted_bytes_total"), "counter");
      assertGreater(series.get('speedlimit_reader_accepted_bytes_total{reader="1"}')!, 10_000);
      assertEquals(series.get('speedlimit_reader_connected{reader="1"}'), 1);
      assertEquals(series.get("speedlimit_readers_connected"), 1);
      assertEquals(series.get('speedlimit_events_total{event="reader"}'), 1);
      assertGreater(series.get("process_resident_memory_bytes")!, 1e6);
      assertGreater(series.get("process_cpu_seconds_total")!, 0);
      const age = Date.now() / 1000 - series.get("process_start_time_seconds")!;
      assert(age > -2 && age < 60, `the process is ${age} s old`);
      reader.destroy();
      let after = series;
      for (let i = 0; i < 100 && after.get("speedlimit_readers") !== 0; i++) {
        after = await seriesOf(http);
      }
      const closed = [...after].filter(([name]) =>
        name.startsWith("speedlimit_connections_closed")
      );
      assertEquals(closed.reduce((sum, [, value]) => sum + value, 0), 1);
    });
  });

  test("of a queue go on while its reader is away", async () => {
    await withFolder(async (folder) => {
      const queue = join(folder, "queue.db");
      const args = ["--overflow", "spill", "--spill", queue, "--rate", "10k/s"];
      await watched([...args, "--reader-id", "hello"], async ({ port, http }) => {
        const reader = await connect(port);
        reader.write("a.reader_1\n");
        await within("a message", 5000, new Promise((done) => reader.once("data", done)));
        reader.destroy();
        const lag = 'speedlimit_reader_lag_messages{reader="a.reader_1"}';
        let series = await seriesOf(http);
        for (let i = 0; i < 1000 && !(series.get(lag)! > 5000); i++) series = await seriesOf(http);
        assertGreater(series.get(lag)!, 5000);
        assertEquals(series.get('speedlimit_reader_connected{reader="a.reader_1"}'), 0);
        assertEquals(
          series.get('speedlimit_reader_lag_bytes{reader="a.reader_1"}'),
          64 * series.get(lag)!,
        );
      });
    });
  });

  test("count every event, from 0 on", () => {
    const counts = new EventCounts();
    const seriesNow = () =>
      parseExposition(formatExposition(serverMetrics(counts, undefined))).series;
    const counted = [...seriesNow()].filter(([name]) =>
      /^speedlimit_(events|connections_\w+)_total/.test(name)
    );
    assertEquals(counted.map(([, value]) => value), counted.map(() => 0));
    const closed = {
      event: "closed",
      reader: 1,
      reason: "local",
      messages: 0,
      bytes: 0,
      dropped: 0,
      overflows: 0,
      seconds: 1,
    } as const;
    const at = { time: 1, host: "127.0.0.1", port: 1 };
    const source = { event: "source", time: 1 } as const;
    const events: [event: ServeEvent, series: string[]][] = [
      [{ event: "listening", ...at }, ['events_total{event="listening"}']],
      [{ event: "source-replaced", time: 1, before: "a", now: "b" }, [
        'events_total{event="source-replaced"}',
      ]],
      [{ event: "accept-failed", time: 1, error: "EMFILE", count: 9 }, [
        'events_total{event="accept-failed"}',
      ]],
      [{ ...source, what: { event: "retrying", inMs: 100 } }, [
        'events_total{event="source",what="retrying"}',
      ]],
      [{ ...source, what: { event: "bad-frame", then: "skip", count: 1, reason: "long" } }, [
        'events_total{event="source",what="bad-frame"}',
      ]],
      [{ event: "refused", ...at, why: "readers", readers: 1 }, [
        'events_total{event="refused"}',
        'connections_refused_total{why="readers"}',
      ]],
      [{ ...closed, time: 1, refused: "no", why: "names" }, [
        'events_total{event="closed"}',
        'connections_closed_total{reason="local"}',
        'connections_refused_total{why="names"}',
      ]],
      [{ ...closed, time: 1 }, [
        'events_total{event="closed"}',
        'connections_closed_total{reason="local"}',
      ]],
      [{ event: "sent", time: 1, reader: 1, messages: 1 }, []],
    ];
    for (const [event, names] of events) {
      const before = seriesNow();
      counts.add(event);
      const after = seriesNow();
      const more = counted.map(([name]) => name).filter((name) =>
        after.get(name)! - before.get(name)! === 1
      );
      assertEquals(more.sort(), names.map((name) => `speedlimit_${name}`).sort());
    }
  });

  test("count who was not served, and what the source does", async () => {
    const feed = createServer().listen(0, "127.0.0.1");
    await new Promise((done) => feed.once("listening", done));
    const { port: feedPort } = feed.address() as { port: number };
    await new Promise((done) => feed.close(done));
    const args = ["--source", `tcp://127.0.0.1:${feedPort}`, "--frame", "line"];
    const named = ["--reader-id", "hello", "--max-reader-names", "1", "--overflow", "block"];
    await watched([...args, ...named], async ({ program, port, http }) => {
      const first = await connect(port);
      first.write("anna\n");
      await within("an attempt", 5000, program.saw(/"retrying"/));
      const others = [];
      for (const [i, line] of ["bert\n", "no name!\n", "no name!\n"].entries()) {
        const other = await connect(port);
        other.resume().write(line);
        others.push(other);
        await within("its end", 5000, program.saw(new RegExp(`"closed"[^\\n]*"reader":${i + 2},`)));
      }
      const series = await seriesOf(http);
      const refused = (why: string) =>
        series.get(`speedlimit_connections_refused_total{why="${why}"}`);
      assertEquals(["names", "handshake", "connected", "allow"].map(refused), [1, 2, 0, 0]);
      const source = (what: string) =>
        series.get(`speedlimit_events_total{event="source",what="${what}"}`);
      assertGreater(source("retrying")!, 0);
      assertEquals([source("connected"), source("bad-frame")], [0, 0]);
      assertEquals(series.get('speedlimit_events_total{event="source-replaced"}'), 0);
      assertEquals(series.get('speedlimit_events_total{event="accept-failed"}'), 0);
      for (const socket of [first, ...others]) socket.destroy();
    });
  });

  test("show 1,000 readers, and the others as one", () => {
    const readers = Array.from({ length: 1002 }, (_, i) => ({
      ...READER,
      name: `r${i}`,
      lagSeconds: i === 1000 ? 9 : i === 1001 ? NaN : 1,
    }));
    const figures = { readers, logs: [], memoryBytes: 0 };
    const { series } = parseExposition(formatExposition(serverMetrics(new EventCounts(), figures)));
    const all = [...series.keys()].filter((key) => key.startsWith("speedlimit_reader_lag_seconds"));
    assertEquals(all.length, 1001);
    const ofOthers = (name: string) => series.get(`speedlimit_reader_${name}{reader="(others)"}`);
    assertEquals(ofOthers("lag_bytes"), 6);
    assertEquals(ofOthers("connected"), 2);
    assertEquals(ofOthers("lag_seconds"), 9);
    assertEquals(series.get("speedlimit_readers"), 1002);
  });

  test("have all that a store may tell, and names with any characters", () => {
    const text = formatExposition(serverMetrics(new EventCounts(), {
      readers: [{ ...READER, name: 'a "b"\\\n{}' }, { ...READER, lagSeconds: Infinity }],
      logs: [{ stream: "main", bytes: 1, segments: 2, oldestSeconds: 3 }],
      memoryBytes: 4,
      diskFreeBytes: 1e21,
      sync: { count: 5, seconds: 0.25, longestSeconds: 1e-7 },
      sourceConnected: false,
    }));
    const { series } = parseExposition(text);
    assertEquals(series.get('speedlimit_reader_lag_bytes{reader="a \\"b\\"\\\\\\n{}"}'), 3);
    assertEquals(series.get('speedlimit_reader_lag_seconds{reader="a"}'), Infinity);
    assertEquals(series.get('speedlimit_log_oldest_seconds{stream="main"}'), 3);
    assertEquals(series.get("speedlimit_disk_free_bytes"), 1e21);
    assertEquals(series.get("speedlimit_syncs_total"), 5);
    assertEquals(series.get("speedlimit_sync_longest_seconds"), 1e-7);
    assertEquals(series.get("speedlimit_source_connected"), 0);
  });

  test("would be refused by this parser with any mistake", () => {
    const head = "# HELP a_total b\n# TYPE a_total counter\n";
    assertEquals(parseExposition(`${head}a_total{x="1"} 1\na_total 2\n`).series.size, 2);
    const wrong: Record<string, RegExp> = {
      "a_total 1\n": /without HELP/,
      [`${head}a_total 1`]: /no end/,
      [`${head}a_total 1\na_total 1\n`]: /a series twice/,
      [`${head}a_total -1\n`]: /below zero/,
      [`${head}a_total{x="1",x="2"} 1\n`]: /a label twice/,
      [`${head}a_total{x="\n"} 1\n`]: /no label/,
      [`${head}a_total{x="\\t"} 1\n`]: /no label/,
      [`${head}a_total 1,0\n`]: /no number/,
      [`${head}a_total  1\n`]: /no value/,
      [`${head}\na_total 1\n`]: /no sample/,
      [`${head}`]: /has no sample/,
      "# HELP a b\n# TYPE a counter\na 1\n": /against its type/,
      [`${head}a_total 1\n# HELP b c\n# TYPE b gauge\nb 1\na_total{x="1"} 1\n`]: /two pieces/,
    };
    for (const [text, says] of Object.entries(wrong)) {
      assertMatch(assertThrows(() => parseExposition(text), Error).message, says);
    }
  });
});

describe("the HTTP server", () => {
  test("answers GET and HEAD of its pages, and nothing else", async () => {
    await watched([], async ({ http }) => {
      const expected: [method: string, page: string, status: number, body: RegExp][] = [
        ["GET", "/healthz", 200, /^ok\n$/],
        ["GET", "/readyz", 200, /^ready\n$/],
        ["GET", "/healthz?verbose=1", 200, /^ok\n$/],
        ["HEAD", "/healthz", 200, /^$/],
        ["HEAD", "/metrics", 200, /^$/],
        ["GET", "/", 404, /^no such page.*\/metrics, \/healthz, \/readyz\n$/],
        ["GET", "/metrics/", 404, /^no such page/],
        ["GET", "/constructor", 404, /^no such page/],
        ["HEAD", "/other", 404, /^$/],
        ["POST", "/other", 404, /^no such page/],
        ["POST", "/metrics", 405, /^only GET and HEAD/],
        ["DELETE", "/readyz", 405, /^only GET and HEAD/],
      ];
      for (const [method, page, status, body] of expected) {
        const answer = await ask(http, page, method);
        assertEquals([method, page, answer.status], [method, page, status]);
        assertMatch(answer.body, body);
        assertEquals(answer.headers["allow"], status === 405 ? "GET, HEAD" : undefined);
        if (method === "HEAD") assertGreater(Number(answer.headers["content-length"]), 2);
      }
    });
  });

  test("tells that the source is not connected, and when it is", async () => {
    const feed = createServer().listen(0, "127.0.0.1");
    await new Promise((done) => feed.once("listening", done));
    const { port: feedPort } = feed.address() as { port: number };
    await new Promise((done) => feed.close(done));
    const args = ["--source", `tcp://127.0.0.1:${feedPort}`, "--frame", "line"];
    await watched(args, async ({ program, port, http }) => {
      // It is opened only once there is a reader.
      assertEquals((await ask(http, "/readyz")).status, 200);
      const reader = await connect(port);
      await within("an attempt", 5000, program.saw(/"retrying"/));
      const { status, body } = await ask(http, "/readyz");
      assertEquals([status, body], [503, "not ready: the source is not connected\n"]);
      assertEquals((await ask(http, "/healthz")).status, 200);
      assertEquals((await seriesOf(http)).get("speedlimit_source_connected"), 0);
      const again = createServer().listen(feedPort, "127.0.0.1");
      try {
        await within("the source", 10_000, program.saw(/"connected"/));
        assertEquals((await ask(http, "/readyz")).status, 200);
        assertEquals((await seriesOf(http)).get("speedlimit_source_connected"), 1);
      } finally {
        again.close();
        reader.destroy();
      }
    });
  });

  test("answers while the server is ending, and does not keep it from that", async () => {
    await watched(["--replies", "drain", "--rate", "1k/s"], async ({ program, port, http }) => {
      // A reader that sees the end and does not close: the server waits a second for it.
      const reader = connectSocket({ port, host: "127.0.0.1", allowHalfOpen: true });
      const ended = new Promise((done) => reader.once("end", done));
      reader.resume();
      await within("the reader", 5000, program.saw(/"event":"reader"/));
      // And one that never says what it wants.
      const silent = await connect(http);
      silent.write("GET /metr");
      program.kill("SIGTERM");
      await within("the end of the stream", 5000, ended);
      const { status, body } = await ask(http, "/readyz");
      assertEquals([status, body], [503, "not ready: the server is ending\n"]);
      assertEquals((await ask(http, "/healthz")).status, 200);
      const end = await within("its end", 5000, program.ended);
      assertEquals([end.status, end.stderr], [0, ""]);
      reader.destroy();
      silent.destroy();
    });
  });

  test("lets a server end that has nothing more to do", async () => {
    await watched(["--rate", "1k/s", "--duration", "100ms"], async ({ program, port, http }) => {
      const silent = await connect(http);
      const reader = await connect(port);
      reader.resume().on("end", () => reader.end());
      assertEquals((await within("its end", 10_000, program.ended)).status, 0);
      silent.destroy();
    });
  });

  test("on a port that is taken: one line, and exit status 1", async () => {
    const other = createServer().listen(0, "127.0.0.1");
    await new Promise((done) => other.once("listening", done));
    const { port } = other.address() as { port: number };
    try {
      const args = ["server.ts", "--port", "0", "--metrics", `127.0.0.1:${port}`];
      const { status, stdout, stderr } = await run(args, { timeoutMs: 15_000 });
      assertEquals([status, stdout], [1, ""]);
      assertEquals(
        stderr,
        `server: cannot listen on 127.0.0.1:${port} for --metrics: the port is already in use ` +
          "(EADDRINUSE)\n",
      );
    } finally {
      other.close();
    }
  });

  test("warns where others than this machine can ask", async () => {
    await serving([...json, "--metrics", "0.0.0.0:0"], async (program) => {
      const says = /^warning: whoever can reach 0\.0\.0\.0:\d+ can read the metrics, /m;
      await within("the warning", 5000, program.saw(says));
    });
  });

  test("for people: says where", async () => {
    await serving(["--metrics", "0"], async (program) => {
      await within("where", 5000, program.saw(/^metrics on http:\/\/127\.0\.0\.1:\d+\/metrics$/m));
    });
  });
});
