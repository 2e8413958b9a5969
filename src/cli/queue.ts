/**
 * Inspects and repairs the durable queue of a server with --overflow spill.
 *
 *     npx speedlimit queue status feed.queue
 *     bun run bin/queue.ts repair feed.queue --apply
 */
import { once } from "node:events";
import { createWriteStream } from "node:fs";
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
import { type Damage, QueueError } from "../queue/queue.ts";
import { toNumber } from "../queue/sqlite_batch.ts";
import {
  checkQueue,
  type CheckResult,
  QueueContent,
  type QueueStatus,
  queueStatus,
} from "../queue/sqlite_check.ts";
import { loadSqlite } from "../queue/sqlite_file.ts";
import { planRepair, repairQueue } from "../queue/sqlite_repair.ts";
import { formatTable } from "../text/table.ts";
import { formatBytes } from "../text/units.ts";

const NAMES = ["status", "check", "export", "repair"] as const;
type Name = typeof NAMES[number];

const spec = {
  name: "queue",
  summary: "Inspects and repairs the durable queue in which a server stores messages.\n\n" +
    "  status  shows what is stored for each reader, also while a server runs\n" +
    "  check   checks every byte and lists all damage\n" +
    "  export  writes the messages of a reader to standard output or a file\n" +
    "  repair  shows how damage can be repaired; repairs it with --apply",
  positionals: {
    command: option({
      value: "COMMAND",
      help: "status, check, export or repair",
      parse: choice({ help: "", choices: NAMES, default: "status" }).parse,
    }),
  },
  options: {},
};

const FILE = {
  file: option({ value: "FILE", help: "the queue's file", parse: (text) => text }),
};

/**
 * Runs the command; `called` is its name in the usage line. Returns the exit status. Throws a
 * UsageError or a QueueError.
 */
export async function main(args: readonly string[], called = "queue.ts"): Promise<number> {
  const first = args[0]?.startsWith("-") ? args : args.slice(0, 1);
  const usage = NAMES.map((name) => `${called} ${name} FILE [OPTIONS]`);
  const { command } = parseCommandLine({ ...spec, usage }, first).positionals;
  if (command === undefined) {
    throw new UsageError("no command: must be status, check, export or repair");
  }
  return await COMMANDS[command](args.slice(1), `${called} ${command}`);
}

const COMMANDS: Record<Name, (args: readonly string[], called: string) => Promise<number>> = {
  async status(args, called) {
    const { file, options } = parse(args, {
      name: called,
      summary: "Shows what a queue stores for each reader, also while a server has it open.",
      usage: [`${called} FILE [--json]`],
      options: { json: flag("prints one JSON object") },
    });
    const status = await queueStatus(await loadSqlite(), file);
    printLine(options.json ? JSON.stringify(status) : statusText(status));
    return 0;
  },

  async check(args, called) {
    const { file } = parse(args, {
      name: called,
      summary: "Checks every byte of a queue that no server has open. Exits 1 on any damage.",
      usage: [`${called} FILE`],
      options: {},
    });
    const found = checkQueue(await loadSqlite(), file);
    for (const line of findings(found)) printLine(line);
    for (const { reader, offset, bytes } of found.gaps) {
      printLine(`gap: reader ${quoted(reader)}, ${bytes} bytes at offset ${offset} are not stored`);
    }
    const damaged = found.broken.length + found.damages.length + found.setAside.length > 0;
    printLine(`${damaged ? "intact" : "no damage"}: ${amount(found.intact)}`);
    return damaged ? 1 : 0;
  },

  async export(args, called) {
    const { file, options } = parse(args, {
      name: called,
      summary: "Writes the stored messages of a reader as they would be sent. Reports missing\n" +
        "bytes on standard error.",
      usage: [`${called} FILE [--reader NAME] [--out FILE] > messages`],
      options: {
        reader: option({
          value: "NAME",
          help: "the reader (default: the only one)",
          parse: (text) => text,
        }),
        out: option({
          value: "FILE",
          help: "a new file to write to; -: standard output",
          default: "-",
          parse: (text) => text,
        }),
      },
    });
    const content = new QueueContent(await loadSqlite(), file);
    try {
      return await exportReader(content, file, options.reader, options.out!);
    } finally {
      content.close();
    }
  },

  async repair(args, called) {
    const { file, options } = parse(args, {
      name: called,
      summary: "Shows how damage in a queue can be repaired. Changes nothing without --apply.\n" +
        "Deletes nothing: damaged batches are set aside, and a broken file is kept.",
      usage: [`${called} FILE [--apply]`],
      options: { apply: flag("repairs the queue") },
    });
    const sqlite = await loadSqlite();
    const plan = planRepair(sqlite, file);
    for (const line of plan.found === undefined ? [] : findings(plan.found)) printLine(line);
    if (!options.apply || plan.kind === "nothing") {
      printLine(PLANS[plan.kind]);
      if (plan.kind !== "nothing") {
        printLine(`not changed; to repair it: ${called} ${file} --apply`);
      }
      return 0;
    }
    const { damages, oldFile } = repairQueue(sqlite, file, plan);
    if (plan.kind === "roll-back") printLine("rolled back: an interrupted transaction");
    for (const damage of damages) printLine(`set aside: ${damageText(damage)}`);
    if (oldFile !== undefined) {
      printLine(`copied: a new file has all that was intact; the old file is ${oldFile}`);
    }
    return 0;
  },
};

const PLANS = {
  nothing: "no damage: there is nothing to repair",
  "roll-back": "plan: roll back an interrupted transaction, as opening the queue does; " +
    "then check again",
  "set-aside": "plan: set the damaged batches aside, within the file",
  copy: "plan: copy all that is intact into a new file, and keep the old file beside it",
};

/** Parses the file and the options of one command. */
function parse<const T extends CommandSpec<Record<never, never>>["options"]>(
  args: readonly string[],
  spec: CommandSpec<T>,
) {
  const { options, positionals } = parseCommandLine({ ...spec, positionals: FILE }, args);
  const { file } = positionals;
  if (file === undefined) throw new UsageError("no FILE: which queue?");
  return { options, file };
}

function statusText({ file, fileBytes, freeBytes, open, damaged, readers }: QueueStatus): string {
  const rows = readers.map((reader) => [
    reader.name,
    formatBytes(reader.bytes),
    String(reader.messages),
    String(reader.batches),
    String(reader.delivered),
    reader.oldest ?? "-",
  ]);
  const lines = [
    `${file}: ${formatBytes(fileBytes)}, of which ${formatBytes(freeBytes)} free; ` +
    (open ? "open in another process" : "not open"),
  ];
  if (damaged > 0) {
    lines.push(`${damaged} damaged batches were set aside: \`queue check\` lists them`);
  }
  const head = ["reader", "stored", "messages", "batches", "delivered", "oldest"];
  lines.push(rows.length === 0 ? "no readers yet" : formatTable([head, ...rows]));
  return lines.join("\n");
}

function* findings({ broken, damages, setAside }: CheckResult): Generator<string> {
  for (const line of broken) yield `broken: ${line}`;
  for (const damage of damages) yield `damaged: ${damageText(damage)}`;
  for (const { damage, foundAt } of setAside) {
    yield `set aside on ${foundAt}: ${damageText(damage)}`;
  }
}

function damageText({ reader, offset, bytes, messages, reason }: Damage): string {
  return `reader ${quoted(reader)}, ${bytes} bytes (${messages} messages) at offset ${offset}: ` +
    reason;
}

const quoted = (name: string) => JSON.stringify(name);
const amount = ({ batches, bytes, messages }: CheckResult["intact"]) =>
  `${batches} batches, ${formatBytes(bytes)}, ${messages} messages`;

async function exportReader(
  content: QueueContent,
  file: string,
  wanted: string | undefined,
  out: string,
): Promise<number> {
  const names = content.readers.map(({ name }) => name);
  const name = wanted ?? (names.length === 1 ? names[0] : undefined);
  if (name === undefined && names.length > 0) {
    throw new UsageError(
      `${file} has ${names.length} readers: choose one with --reader: ${names.join(", ")}`,
    );
  }
  if (name === undefined || !names.includes(name)) {
    throw new QueueError(
      `${file} has no reader ${quoted(name ?? "")}: it has ${names.join(", ") || "none"}`,
    );
  }
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
  const total = { batches: 0, bytes: 0, messages: 0 };
  let end: number | undefined;
  for (const { row, reader, bytes } of content.batches()) {
    if (signal.aborted) return 130;
    if (reader?.name !== name) continue;
    const offset = toNumber(row.offset);
    if (typeof bytes === "string") {
      logLine(`missing: ${toNumber(row.length)} bytes at offset ${offset}: ${bytes}`);
      // Not reported as a gap too: the numbers of a damaged batch may be wrong.
      end = undefined;
      continue;
    }
    if (end !== undefined && offset > end) {
      logLine(`missing: ${offset - end} bytes at offset ${end}`);
    }
    end = offset + bytes.length;
    if (!stream.write(bytes)) {
      await Promise.race([once(stream, "drain", { signal }), failed.promise]);
    }
    total.batches++;
    total.bytes += bytes.length;
    total.messages += toNumber(row.messages);
  }
  for (const line of content.broken) logLine(`broken: ${line}`);
  if (out !== "-") {
    stream.end();
    await Promise.race([finished(stream), failed.promise]);
  }
  logLine(`exported ${amount(total)}`);
  return 0;
}
