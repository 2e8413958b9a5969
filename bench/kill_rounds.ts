/**
 * One round of bench/kill.ts: servers and readers run as processes and are killed (SIGKILL) as planned.
 * Then everything is delivered, and what each reader has stored is checked.
 */
import { appendFileSync, existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { queueStatus, storedFor } from "../src/queue/inspect.ts";
import { loadSqlite } from "../src/queue/sqlite.ts";
import { cellName, type KillCell, type Plan, planRound, type Victim } from "./kill_cells.ts";
import {
  checkReader,
  type Growth,
  NO_FIGURES,
  type Range,
  type ReaderFigures,
  type ServerKill,
} from "./kill_check.ts";
import { Feed } from "./kill_feed.ts";
import { lastNumber, numberAt, writeMessages } from "./kill_messages.ts";
import { commandOn, Program } from "./programs.ts";
import { type KeeperConfig, readConnections } from "./readers/keeper.ts";
import { randomFrom } from "./random.ts";

export interface RoundOptions {
  cell: KillCell;
  seed: number;
  /** From 1. */
  round: number;
  kills: number;
  /** Keeps the files of a round with a violation; default: they are deleted. */
  keeps?: boolean | undefined;
  /** Called after each kill. */
  onKill?: () => void;
}

/** Of all readers of a round: sums, and the largest of each `most` and `beyond`. */
export interface RoundFigures extends ReaderFigures {
  serverKills: number;
  upstreamKills: number;
  readerKills: number;
  seconds: number;
  /** What does not hold, a line each. */
  violations: string[];
}

/** Length of the messages. */
const SIZE = 64;
/** What is offered to one reader alone, and to each of several, or from a file; bytes a second. */
const RATE_ALONE = 3e6;
const RATE_EACH = 1e6;
/** The file as a source lasts for so long. */
const FILE_SECONDS = 120;
/** Deadlines: of a program, until what was killed works again, and until all is delivered. */
const PROGRAM_S = 300;
const RECOVER_S = 30;
const DELIVER_S = 60;
/** How often the readers' files are looked at. */
const LOOK_MS = 10;
/**
 * What a killed server may hold of a plain TCP source beyond its backlog, in its batches and in its
 * kernel; bytes.
 */
const UNSTORED = 8 << 20;

/** Something did not happen in time, or a program failed: the round cannot go on. */
class Stuck extends Error {}

/** A server of the round that is started again after each kill. */
class KilledServer {
  readonly #runtime: KillCell["runtime"];
  readonly #args: string[];
  readonly #log: string;
  /** The first free one, then always the same. */
  port = 0;
  gaps = new Map<string, number>();
  #program: Program | undefined;
  #listening: Promise<unknown> = Promise.resolve();

  /** `log`: where its events are stored; for whoever repeats the round. */
  constructor(runtime: KillCell["runtime"], args: string[], log: string) {
    this.#runtime = runtime;
    this.#args = args;
    this.#log = log;
  }

  /** Whether it runs; it should unless it was ended. */
  start(source?: string[]): void {
    const args = ["--json", "--port", String(this.port), ...this.#args];
    const words = commandOn(this.#runtime, "server.ts", ...args, ...source ?? []);
    const program = new Program(words, { seconds: PROGRAM_S, statuses: [0, 130] });
    this.#program = program;
    this.#listening = program.saw(/"event":"listening".*"port":(\d+)/).then(([, port]) => {
      this.port = Number(port);
    });
    this.#listening.catch(() => {});
  }

  async listens(): Promise<void> {
    await inTime("the server listens", RECOVER_S, this.#listening);
  }

  async kill(): Promise<void> {
    this.#program?.kill();
    await this.#program?.ended().catch(() => {});
    this.#count();
  }

  interrupt(): void {
    this.#program?.interrupt();
  }

  /** Waits until it has ended by itself, or because it was interrupted. */
  async ended(what: string, seconds: number): Promise<void> {
    await inTime(what, seconds, this.#program!.ended());
    this.#count();
  }

  #count(): void {
    if (this.#program === undefined) return;
    appendFileSync(this.#log, `${this.#program.stdout}${this.#program.stderr}\n`);
    for (const line of this.#program.stdout.split("\n") ?? []) {
      if (!line.includes('"event":"gap"')) continue;
      const name = /"name":"([^"]*)"/.exec(line)?.[1] ?? "";
      this.gaps.set(name, (this.gaps.get(name) ?? 0) + 1);
    }
  }
}

async function inTime<T>(what: string, seconds: number, promise: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Stuck(`${what}: not within ${seconds} s`)), seconds * 1000);
  });
  try {
    return await Promise.race([promise, late]);
  } catch (error) {
    throw error instanceof Stuck ? error : new Stuck(`${what}: ${(error as Error).message}`);
  } finally {
    clearTimeout(timer);
  }
}

/** A reader of the round: bench/readers/keeper.ts. */
class KilledReader {
  readonly name: string;
  readonly growth: Growth = [];
  readonly #runtime: KillCell["runtime"];
  readonly #config: Omit<KeeperConfig, "port">;
  #program: Program | undefined;

  constructor(runtime: KillCell["runtime"], config: Omit<KeeperConfig, "port">) {
    this.#runtime = runtime;
    this.#config = config;
    this.name = config.name ?? "reader";
  }

  get file(): string {
    return this.#config.file;
  }

  start(port: number): void {
    const config: KeeperConfig = { ...this.#config, port };
    const words = commandOn(this.#runtime, "bench/readers/keeper.ts", JSON.stringify(config));
    this.#program = new Program(words, { seconds: PROGRAM_S });
  }

  async kill(): Promise<void> {
    this.#program?.kill();
    await this.#program?.ended().catch(() => {});
  }

  /** Ends it; rejects if it had failed. */
  async end(): Promise<void> {
    this.#program!.interrupt();
    await inTime(`reader ${this.name} ends`, RECOVER_S, this.#program!.ended());
  }

  get bytes(): number {
    return statSync(this.file, { throwIfNoEntry: false })?.size ?? 0;
  }

  look(): void {
    const { bytes } = this;
    if (bytes !== this.growth.at(-1)?.bytes) this.growth.push({ time: Date.now(), bytes });
  }
}

class Round {
  readonly violations: string[] = [];
  readonly #options: RoundOptions;
  readonly #plan: Plan;
  readonly #folder: string;
  readonly #readers: KilledReader[];
  readonly #rate: number;
  readonly #serverKills: ServerKill[] = [];
  #feed: Feed | undefined;
  #upstream: KilledServer | undefined;
  #server!: KilledServer;
  readonly #looking: ReturnType<typeof setInterval>;

  constructor(options: RoundOptions, folder: string) {
    const { cell: { runtime, ack, readers }, cell, seed, round, kills } = options;
    this.#options = options;
    this.#folder = folder;
    this.#plan = planRound(cell, kills, randomFrom(`${seed} ${cellName(cell)} ${round}`));
    this.#rate = readers === 1 && cell.source !== "file" ? RATE_ALONE : RATE_EACH;
    this.#readers = this.#plan.readers.map(({ name, speed, leaves }, i) =>
      new KilledReader(runtime, {
        file: join(folder, `reader-${i}`),
        size: SIZE,
        name,
        acknowledges: ack === "reader",
        rate: speed * this.#rate,
        leaves,
        hurry: this.#hurry,
      })
    );
    this.#looking = setInterval(() => {
      for (const reader of this.#readers) reader.look();
    }, LOOK_MS);
  }

  /** The options that are not in the cell's name. */
  get drawn(): string {
    const { sync, backlog, durable, readers } = this.#plan;
    const pace = readers.length > 1
      ? ""
      : `, reads at ${readers[0]!.speed}x${readers[0]!.leaves ? " and leaves" : ""}`;
    return `--sync ${sync} --backlog ${backlog}${durable ? " --durable" : ""}${pace}`;
  }

  get #hurry(): string {
    return join(this.#folder, "hurry");
  }

  #queue(name: string): string {
    return join(this.#folder, name);
  }

  async #start(): Promise<void> {
    const { source, ack, readers, runtime } = this.#options.cell;
    const { sync, backlog, durable } = this.#plan;
    const spill = (name: string) => [
      ...["--overflow", "spill", "--spill", this.#queue(name), "--sync", sync],
      ...["--backlog", backlog],
    ];
    const flood = ["--message", "numbered", "--size", `${SIZE}`, "--rate", `${this.#rate}B/s`];
    const framed = ["--frame", `fixed:${SIZE}`, "--start", "oldest"];
    const args = [...spill("queue"), "--ack", ack];
    if (readers > 1) args.push("--reader-id", "hello");
    if (durable) args.push("--durable");
    if (source === "flood") this.#source = flood;
    if (source === "file") {
      const file = join(this.#folder, "messages");
      writeMessages(file, SIZE, this.#rate * FILE_SECONDS);
      this.#source = ["--source", file, ...framed, "--rate", `${this.#rate}B/s`];
    }
    if (source === "tcp") {
      this.#feed = await Feed.listen(SIZE, this.#rate);
      this.#source = ["--source", `tcp://127.0.0.1:${this.#feed.port}`, ...framed];
    }
    if (source === "chain") {
      this.#upstream = new KilledServer(
        runtime,
        [...spill("first"), "--ack", "reader"],
        join(this.#folder, "first.log"),
      );
      this.#upstreamSource = flood;
      this.#upstream.start(flood);
      await this.#upstream.listens();
      const from = `tcp://127.0.0.1:${this.#upstream.port}`;
      this.#source = ["--source", from, "--source-ack", ...framed];
    }
    this.#server = new KilledServer(runtime, args, join(this.#folder, "server.log"));
    this.#server.start(this.#source);
    await this.#server.listens();
    for (const reader of this.#readers) reader.start(this.#server.port);
  }

  #source: string[] = [];
  #upstreamSource: string[] = [];

  async run(): Promise<void> {
    await this.#start();
    await this.#grow("the first messages");
    for (const { victim, ready, afterMs, downMs } of this.#plan.kills) {
      if (ready) await this.#ready();
      await sleep(afterMs);
      await this.#kill(victim, downMs);
      this.#options.onKill?.();
    }
    await this.#ready();
    writeFileSync(this.#hurry, "");
    await this.#grow("messages after the last kill");
    await this.#deliver();
  }

  async #ready(): Promise<void> {
    await this.#upstream?.listens();
    await this.#server.listens();
  }

  async #kill(victim: Victim, downMs: number): Promise<void> {
    if (victim === "upstream") {
      await this.#upstream!.kill();
      await sleep(downMs);
      this.#upstream!.start(this.#upstreamSource);
    } else if (victim === "server") {
      const time = Date.now();
      const sent = this.#feed?.connections.at(-1)?.next ?? 0;
      await this.#server.kill();
      const kill: ServerKill = { time, unstored: undefined, stored: undefined };
      if (this.#feed !== undefined) {
        kill.stored = await this.#stored();
        kill.unstored = { from: sent - UNSTORED / SIZE, to: Infinity };
      }
      this.#serverKills.push(kill);
      await sleep(downMs);
      this.#server.start(this.#source);
    } else {
      const reader = this.#readers[victim.reader]!;
      await reader.kill();
      await sleep(downMs);
      reader.start(this.#server.port);
    }
  }

  /** What is on disk for each reader. */
  async #stored(): Promise<Map<string, Range[]>> {
    const sqlite = await loadSqlite();
    const folder = this.#queue("queue");
    const stored = new Map<string, Range[]>();
    if (!existsSync(join(folder, "queue.db"))) return stored;
    for (const { name, delivered } of (await queueStatus(sqlite, folder)).readers) {
      const ranges: Range[] = [];
      const damaged = (offset: number, bytes: number, why: string) => {
        // Between two batches there may be what was lost at an earlier kill.
        if (why === "they are not stored") return;
        this.violations.push(`${bytes} bytes at offset ${offset} for ${name} on disk: ${why}`);
      };
      for await (
        const { offset, bytes: all } of storedFor(sqlite, folder, { reader: name }, damaged)
      ) {
        const bytes = all.subarray(Math.max(0, delivered - offset));
        // The first may begin inside a message.
        for (let at = bytes.length % SIZE; at < bytes.length; at += SIZE) {
          const number = numberAt(bytes, at);
          const last = ranges.at(-1);
          if (last?.to === number) last.to++;
          else ranges.push({ from: number, to: number + 1 });
        }
      }
      stored.set(name, ranges);
    }
    return stored;
  }

  /** Waits until each reader has more. */
  async #grow(what: string): Promise<void> {
    const before = this.#readers.map(({ bytes }) => bytes);
    const end = performance.now() + RECOVER_S * 1000;
    for (const [i, reader] of this.#readers.entries()) {
      while (reader.bytes < before[i]! + SIZE) {
        if (performance.now() > end) {
          throw new Stuck(`${what}: reader ${reader.name} gets nothing within ${RECOVER_S} s`);
        }
        await sleep(5);
      }
    }
  }

  /** Ends the source, and waits until each reader has all of it. */
  async #deliver(): Promise<void> {
    const feed = this.#feed;
    if (feed !== undefined) {
      while (!feed.isRead) await sleep(5);
      feed.end();
      const { first } = feed.connections.at(-1)!;
      await this.#arrived(Math.max(first, feed.messages));
    }
    if (this.#upstream !== undefined) {
      this.#upstream.interrupt();
      await this.#upstream.ended("the first server ends", RECOVER_S);
      this.#upstream.start(["--source", "none"]);
      await this.#upstream.ended("the first server delivers everything", DELIVER_S);
    }
    // Like a kill: what was just sent may come again.
    this.#serverKills.push({ time: Date.now(), unstored: undefined, stored: undefined });
    this.#server.interrupt();
    await this.#server.ended("the server ends", RECOVER_S);
    const ends = await this.#ends();
    this.#server.start(["--source", "none"]);
    await this.#server.ended("the server delivers everything", DELIVER_S);
    for (const reader of this.#readers) await reader.end();
    this.#end = (name) => ends.get(name) ?? 0;
  }

  /** Number after a reader's last message. */
  #end: (name: string) => number = () => 0;

  /** Waits until each reader has the message before this one. */
  async #arrived(number: number): Promise<void> {
    const end = performance.now() + DELIVER_S * 1000;
    const missing = () =>
      this.#readers.filter(({ file }) => lastNumber(file, SIZE) < number - 1).map(({ name }) =>
        name
      );
    while (missing().length > 0) {
      if (performance.now() > end) {
        throw new Stuck(`message ${number - 1} has not come to ${missing().join(", ")}`);
      }
      await sleep(20);
    }
  }

  /** For each reader the number after its last message, from what an orderly end has recorded. */
  async #ends(): Promise<Map<string, number>> {
    const ends = new Map<string, number>();
    const { streams, readers } = await queueStatus(await loadSqlite(), this.#queue("queue"));
    for (const { name, stream, delivered } of readers) {
      const { end } = streams.find((each) => each.stream === stream)!;
      ends.set(name, Math.max(end, delivered) / SIZE);
    }
    if (this.#feed !== undefined) {
      for (const { name } of this.#readers) ends.set(name, this.#feed.messages);
    }
    return ends;
  }

  /** The readers' figures, and all violations. */
  check(): RoundFigures {
    const { cell } = this.#options;
    const kills = this.#plan.kills.map(({ victim }) => victim);
    const total: RoundFigures = {
      ...NO_FIGURES,
      serverKills: kills.filter((victim) => victim === "server").length,
      upstreamKills: kills.filter((victim) => victim === "upstream").length,
      readerKills: kills.filter((victim) => typeof victim === "object").length,
      seconds: 0,
      violations: this.violations,
    };
    for (const kill of this.#serverKills) {
      const later = this.#feed?.connections.find(({ time }) => time > kill.time);
      if (kill.unstored !== undefined && later !== undefined) kill.unstored.to = later.first;
    }
    for (const { name, file, growth } of this.#readers) {
      const record = {
        name,
        file,
        size: SIZE,
        connections: readConnections(file),
        growth,
        end: this.#end(name),
        serverKills: this.#serverKills,
        gapEvents: this.#server.gaps.get(name) ?? 0,
      };
      const figures = checkReader(cell, record, (what) => this.violations.push(what));
      for (const key of Object.keys(figures) as (keyof ReaderFigures)[]) {
        const most = key.startsWith("most") || key === "beyondStated";
        total[key] = most ? Math.max(total[key], figures[key]) : total[key] + figures[key];
      }
    }
    return total;
  }

  async end(): Promise<void> {
    clearInterval(this.#looking);
    await Promise.all(this.#readers.map((reader) => reader.kill()));
    await this.#server?.kill();
    await this.#upstream?.kill();
    await this.#feed?.close();
  }
}

/** Runs a round in a directory of its own. Rejects only where this machine cannot run it. */
export async function killRound(options: RoundOptions): Promise<RoundFigures & { drawn: string }> {
  const folder = mkdtempSync(join(tmpdir(), "speedlimit-kill-"));
  const startMs = performance.now();
  const round = new Round(options, folder);
  try {
    let delivered = true;
    try {
      await round.run();
    } catch (error) {
      if (!(error instanceof Stuck)) throw error;
      delivered = false;
      round.violations.push(error.message);
    }
    await round.end();
    const figures = delivered ? round.check() : {
      ...NO_FIGURES,
      ...{ serverKills: 0, upstreamKills: 0, readerKills: 0, seconds: 0 },
      violations: round.violations,
    };
    const seconds = (performance.now() - startMs) / 1000;
    return { ...figures, seconds, drawn: round.drawn };
  } finally {
    await round.end();
    if (!options.keeps || round.violations.length === 0) {
      rmSync(folder, { recursive: true, force: true });
    } else round.violations.push(`what it has left is in ${folder}`);
  }
}
