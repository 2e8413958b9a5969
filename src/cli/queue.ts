/**
 * Inspects, changes and repairs the durable queue of a server with --overflow spill.
 *
 *     npx speedlimit queue status ./queue
 *     bun run bin/queue.ts forget ./queue reader-7
 */
import { once } from "node:events";
import { createWriteStream, statSync } from "node:fs";
import process from "node:process";
import { finished } from "node:stream/promises";
import {
  choice,
  type CommandSpec,
  flag,
  option,
  parseCommandLine,
  UsageError,
} from "./command_line.ts";
import { interrupted, logLine, printLine } from "./program.ts";
import {
  databaseError,
  forgetReader,
  rebuildDatabase,
  seekReader,
  type SeekTo,
} from "../queue/change.ts";
import { isFirstFormat } from "../queue/disk_queue.ts";
import { FirstFormat } from "../queue/first_format.ts";
import {
  checkQueue,
  type FoundDamage,
  namesIn,
  type QueueStatus,
  queueStatus,
  storedFor,
} from "../queue/inspect.ts";
import { type Batch, QueueError } from "../queue/queue.ts";
import { loadSqlite } from "../queue/sqlite.ts";
import { formatTable } from "../text/table.ts";
import { formatBytes, UnitError } from "../text/units.ts";

const NAMES = ["status", "check", "export", "forget", "seek", "repair"] as const;
type Name = typeof NAMES[number];

const spec = {
  name: "queue",
  summary: "Inspects, changes and repairs the durable queue in which a server stores\n" +
    "messages.\n\n" +
    "  status  shows what is stored for each reader, also while a server runs\n" +
    "  check   checks every byte and lists all damage, also while a server runs\n" +
    "  export  writes the messages of a reader to standard output or a file\n" +
    "  forget  removes a reader that does not come back\n" +
    "  seek    moves a reader to another place of its stream\n" +
    "  repair  makes a damaged queue usable again",
  positionals: {
    command: option({
      value: "COMMAND",
      help: NAMES.join(", "),
      parse: choice({ help: "", choices: NAMES, default: "status" }).parse,
    }),
  },
  options: {},
};

const FOLDER = {
  folder: option({ value: "FOLDER", help: "the queue's folder", parse: (text) => text }),
};
const NAME = {
  reader: option({ value: "NAME", help: "the reader's name", parse: (text) => text }),
};

/**
 * Runs the command; `called` is its name in the usage line. Returns the exit status. Throws a
 * UsageError or a QueueError.
 */
export async function main(args: readonly string[], called = "queue.ts"): Promise<number> {
  const first = args[0]?.startsWith("-") ? args : args.slice(0, 1);
  const usage = NAMES.map((name) => `${called} ${name} FOLDER [...]`);
  const { command } = parseCommandLine({ ...spec, usage }, first).positionals;
  if (command === undefined) throw new UsageError(`no command: must be ${NAMES.join(", ")}`);
  return await COMMANDS[command](args.slice(1), `${called} ${command}`);
}

const COMMANDS: Record<Name, (args: readonly string[], called: string) => Promise<number>> = {
  async status(args, called) {
    const { folder, options } = parse(args, {
      name: called,
      summary: "Shows what a queue stores for each reader, also while a server has it open.",
      usage: [`${called} FOLDER [--json]`],
      options: { json: flag("prints one JSON object") },
      positionals: FOLDER,
    });
    const status = await queueStatus(await loadSqlite(), folder);
    printLine(options.json ? JSON.stringify(status) : statusText(status));
    return 0;
  },

  async check(args, called) {
    const { folder } = parse(args, {
      name: called,
      summary: "Checks every byte of a queue, also while a server has it open. Exits 1 on any\n" +
        "damage.",
      usage: [`${called} FOLDER`],
      options: {},
      positionals: FOLDER,
    });
    const { damages, batches, bytes } = await checkQueue(await loadSqlite(), folder);
    for (const damage of damages) printLine(`damaged: ${damageText(damage)}`);
    const intact = `${batches} batches, ${formatBytes(bytes)}`;
    printLine(`${damages.length > 0 ? "intact" : "no damage"}: ${intact}`);
    return damages.length > 0 ? 1 : 0;
  },

  async export(args, called) {
    const { folder, options } = parse(args, {
      name: called,
      summary: "Writes the stored messages of a reader as they would be sent, or all that is\n" +
        "stored of a stream. Reports missing bytes on standard error. Also reads a queue\n" +
        "of the first version, which was one file.",
      usage: [`${called} FOLDER [--reader NAME | --stream STREAM] > messages`],
      options: {
        reader: option({
          value: "NAME",
          help: "the reader (default: the only one)",
          parse: (text) => text,
        }),
        stream: option({
          value: "STREAM",
          help: "a stream as a whole (default if there are no readers: the only one)",
          parse: (text) => text,
        }),
        out: option({
          value: "FILE",
          help: "a new file to write to; -: standard output",
          default: "-",
          parse: (text) => text,
        }),
      },
      positionals: FOLDER,
    });
    const { reader, stream } = options;
    if (reader !== undefined && stream !== undefined) {
      throw new UsageError("--reader and --stream exclude each other");
    }
    return await exportStored(folder, { reader, stream }, options.out!);
  },

  async forget(args, called) {
    const { folder, reader } = parse(args, {
      name: called,
      summary: "Removes a reader: its messages are not kept any more. No server may have the\n" +
        "queue open.",
      usage: [`${called} FOLDER NAME`],
      options: {},
      positionals: { ...FOLDER, ...NAME },
    });
    if (reader === undefined) throw new UsageError("no NAME: which reader?");
    forgetReader(await loadSqlite(), folder, reader);
    printLine(`forgotten: ${reader}`);
    return 0;
  },

  async seek(args, called) {
    const { folder, reader, place } = parse(args, {
      name: called,
      summary: "Moves a reader within what is stored of its stream: to the end (now), to the\n" +
        "oldest message, or to an offset. Within a batch, that is its start, where a\n" +
        "message is known to begin. No server may have the queue open.",
      usage: [`${called} FOLDER NAME now|oldest|OFFSET`],
      options: {},
      positionals: {
        ...FOLDER,
        ...NAME,
        place: option({
          value: "PLACE",
          help: "now, oldest or an offset in bytes",
          parse: parsePlace,
        }),
      },
    });
    if (reader === undefined || place === undefined) {
      throw new UsageError("no NAME or no place: which reader, and where to?");
    }
    const offset = await seekReader(await loadSqlite(), folder, reader, place);
    printLine(`${reader}: is sent its messages from offset ${offset} on`);
    return 0;
  },

  async repair(args, called) {
    const { folder, options } = parse(args, {
      name: called,
      summary: "Shows what is wrong with a queue. With --apply, a database that cannot be read\n" +
        "is made anew from the messages on disk. Deletes nothing. Damaged messages need\n" +
        "no repair: a server skips them, and reports the gap.",
      usage: [`${called} FOLDER [--apply]`],
      options: { apply: flag("makes a damaged database anew") },
      positionals: FOLDER,
    });
    const sqlite = await loadSqlite();
    const error = databaseError(sqlite, folder);
    if (error === undefined) {
      const { damages } = await checkQueue(sqlite, folder);
      for (const damage of damages) printLine(`damaged: ${damageText(damage)}`);
      printLine(
        damages.length === 0
          ? "no damage: there is nothing to repair"
          : "nothing to repair: a server skips what is damaged, and reports the gap",
      );
      return 0;
    }
    printLine(`broken: ${error}`);
    if (!options.apply) {
      printLine(`not changed; to repair it: ${called} ${folder} --apply`);
      return 0;
    }
    const kept = rebuildDatabase(sqlite, folder);
    const old = kept === undefined ? "there was no old one" : `the old one is ${kept}`;
    printLine(`repaired: the database was made anew; ${old}`);
    printLine(
      "readers of a shared stream are unknown now: a reader that comes is sent all that is stored, " +
        "until one has received it; serve --source none delivers just that, queue export writes it",
    );
    return 0;
  },
};

function parsePlace(text: string): SeekTo {
  if (text === "now" || text === "oldest") return text;
  if (/^\d{1,15}$/.test(text)) return Number(text);
  throw new UnitError("must be now, oldest or an offset in bytes");
}

/** Parses the arguments of one command. */
function parse<
  const T extends CommandSpec<Record<never, never>>["options"],
  const P extends typeof FOLDER,
>(
  args: readonly string[],
  spec: Omit<CommandSpec<T>, "positionals"> & { positionals: P },
) {
  const { options, positionals } = parseCommandLine(spec, args);
  const { folder } = positionals;
  if (folder === undefined) throw new UsageError("no FOLDER: which queue?");
  return { options, ...positionals, folder };
}

function statusText({ folder, bytes, open, streams, readers }: QueueStatus): string {
  const lines = [
    `${folder}: ${formatBytes(bytes)} on disk; ${open ? "a server has it open" : "not open"}`,
  ];
  if (streams.length > 0) {
    const rows = streams.map((stream) => [
      stream.key === "" ? "all readers" : stream.key,
      stream.stream,
      formatBytes(stream.bytes),
      String(stream.segments),
      `${stream.start}-${stream.end}`,
      stream.oldest ?? "-",
    ]);
    lines.push(
      formatTable([["stream of", "stream", "on disk", "segments", "offsets", "oldest"], ...rows]),
    );
  }
  if (streams.length === 0) {
    return [...lines, "empty: no server has stored anything yet"].join("\n");
  }
  if (readers.length === 0) return [...lines, "no readers yet"].join("\n");
  const rows = readers.map((reader) => [
    reader.name,
    formatBytes(reader.bytes),
    String(reader.messages),
    String(reader.delivered),
    reader.acknowledges ? "yes" : "no",
  ]);
  const head = ["reader", "stored", "messages", "delivered", "acknowledges"];
  return [...lines, formatTable([head, ...rows])].join("\n");
}

function damageText({ key, offset, bytes, reason }: FoundDamage): string {
  return `${key === "" ? "" : `reader ${JSON.stringify(key)}, `}${bytes} bytes from offset ` +
    `${offset} on: ${reason}`;
}

/** What is to be exported, as it was given. */
interface Wanted {
  reader: string | undefined;
  stream: string | undefined;
}

async function exportStored(
  folder: string,
  wanted: Wanted,
  out: string,
): Promise<number> {
  const sqlite = await loadSqlite();
  const onMissing = (offset: number, bytes: number, reason: string) =>
    logLine(`missing: ${bytes} bytes from offset ${offset} on: ${reason}`);
  if (statSync(folder, { throwIfNoEntry: false })?.isFile() && isFirstFormat(folder)) {
    const old = new FirstFormat(sqlite, folder);
    try {
      const name = chooseReader(folder, old.readers, wanted.reader);
      return await writeBatches(old.batches(name), out);
    } finally {
      old.close();
    }
  }
  const onAgain = (offset: number, bytes: number) =>
    logLine(
      `begins at offset ${offset}, where a message is known to begin: the reader has received the ` +
        `first ${bytes} bytes`,
    );
  const what = chooseStored(folder, namesIn(sqlite, folder), wanted);
  return await writeBatches(storedFor(sqlite, folder, what, onMissing, onAgain), out);
}

function chooseStored(
  folder: string,
  { readers, streams }: { readers: string[]; streams: string[] },
  { reader, stream }: Wanted,
): { reader: string } | { stream: string } {
  // Nobody is known who needs it, as after a repair: then it is all that is stored.
  const only = readers.length === 0 && reader === undefined && streams.length === 1;
  const chosen = stream ?? (only ? streams[0] : undefined);
  if (chosen === undefined) return { reader: chooseReader(folder, readers, reader) };
  if (streams.includes(chosen)) return { stream: chosen };
  throw new QueueError(
    `${folder} has no stream ${JSON.stringify(chosen)}: it has ${streams.join(", ") || "none"}`,
  );
}

function chooseReader(folder: string, names: string[], wanted: string | undefined): string {
  const name = wanted ?? (names.length === 1 ? names[0] : undefined);
  if (name === undefined && names.length > 0) {
    throw new UsageError(
      `${folder} has ${names.length} readers: choose one with --reader: ${names.join(", ")}`,
    );
  }
  if (name !== undefined && names.includes(name)) return name;
  if (name === undefined) {
    throw new QueueError(`${folder} has no readers: choose a stream with --stream`);
  }
  throw new QueueError(
    `${folder} has no reader ${JSON.stringify(name)}: it has ${names.join(", ") || "none"}`,
  );
}

async function writeBatches(
  batches: AsyncIterable<Batch> | Iterable<Batch>,
  out: string,
): Promise<number> {
  const stream = out === "-" ? process.stdout : createWriteStream(out, { flags: "wx" });
  const failed = Promise.withResolvers<never>();
  failed.promise.catch(() => {});
  // runMain reports errors of standard output.
  if (out !== "-") {
    stream.on(
      "error",
      ({ code, message }: NodeJS.ErrnoException) => {
        const why = code === "EEXIST" ? "it exists already, and must be a new file" : message;
        failed.reject(new Error(`cannot write ${out}: ${why}`));
      },
    );
  }
  const signal = interrupted();
  let count = 0;
  let bytes = 0;
  for await (const batch of batches) {
    if (signal.aborted) return 130;
    count++;
    bytes += batch.bytes.length;
    if (!stream.write(batch.bytes)) {
      await Promise.race([once(stream, "drain", { signal }), failed.promise]);
    }
  }
  if (out !== "-") {
    stream.end();
    await Promise.race([finished(stream), failed.promise]);
  }
  logLine(`exported ${count} batches, ${formatBytes(bytes)}`);
  return 0;
}
