/**
 * Measures the limits of readers that Debian packages bring, counted at their output. Those that are not installed
 * are skipped.
 *
 *     npx node --no-warnings bench/gallery.ts --out bench/results/gallery.json
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { option, parseCommandLine, UsageError } from "../src/cli/command_line.ts";
import { parseOutFile } from "../src/cli/out_file.ts";
import { interrupted, printLine, runMain } from "../src/cli/program.ts";
import { findLimit } from "../src/measure/limit.ts";
import type { LimitResult } from "../src/measure/limit_result.ts";
import { templateMessage } from "../src/message/template.ts";
import { formatMachine, type Machine } from "../src/report/machine.ts";
import { parseScript } from "../src/send/script.ts";
import { formatTable } from "../src/text/table.ts";
import { formatByteRate, formatCount } from "../src/text/units.ts";
import { ENTRIES, type Entry } from "./gallery_entries.ts";
import { describeMachine, writeResult } from "./rows.ts";

const spec = {
  name: "gallery",
  summary: "Measures the limits of readers that Debian packages bring, such as rsyslog,\n" +
    "counted at their output. Runs on Node.",
  usage: ["gallery.ts [OPTIONS]"],
  options: {
    only: option({
      value: "NAME[,NAME...]",
      help: "only these readers (default: all that are installed)",
      parse: (text) => text.split(","),
    }),
    out: option({ value: "FILE.json", help: "writes the result", parse: parseOutFile }),
  },
};

export interface GalleryRow {
  name: string;
  package: string;
  does: string;
  advice: string | null;
  /** The package's version; null: it is not installed. */
  version: string | null;
  result:
    | Pick<
      LimitResult,
      "outcome" | "message" | "limit" | "hoards" | "intake" | "output" | "overload" | "recovery"
    >
    | null;
}

export interface GalleryResult {
  schema: "speedlimit/gallery@1";
  environment: Machine;
  rows: GalleryRow[];
}

export const GALLERY_HEAD: readonly string[] = [
  "reader",
  "what it does",
  "limit",
  "messages",
  "offered twice that",
  "comes back",
];

export function formatGalleryRow({ name, does, version, result }: GalleryRow): string[] {
  const shown = version === null ? name : `${name} ${version}`;
  if (result === null) return [shown, does, "not installed", "", "", ""];
  const { limit, outcome, recovery } = result;
  if (limit === null) return [shown, does, outcome, "", "", ""];
  return [
    shown,
    does,
    `${formatByteRate(limit.lower)}-${formatByteRate(limit.upper)}`,
    `${formatCount(limit.messagesPerSecond)}/s`,
    beyond(result),
    recovery === null ? "-" : recovery.recovered ? "yes" : "no",
  ];
}

function beyond({ output, hoards, overload }: NonNullable<GalleryRow["result"]>): string {
  const what = [
    ...(output !== null && output.lost > 0 ? ["loses messages"] : []),
    ...(hoards ? ["takes more than it puts out"] : []),
    ...(overload?.collapsed ? ["collapses"] : []),
  ];
  return what.length === 0 ? "lets the sender wait" : what.join(", ");
}

function versionOf({ package: names, program }: Entry): string | null {
  try {
    execFileSync("sh", ["-c", `command -v ${program}`], { stdio: "ignore" });
  } catch {
    return null;
  }
  try {
    const [name] = names.split(" ");
    const args = ["-W", "-f", "${Version}", name!];
    return execFileSync("dpkg-query", args, { encoding: "utf8" }).replace(/^\d+:|-.*$/g, "");
  } catch {
    return "";
  }
}

async function measure(entry: Entry, signal: AbortSignal): Promise<LimitResult> {
  const folder = mkdtempSync(join(tmpdir(), "speedlimit-gallery-"));
  try {
    const { out } = entry;
    const place = out.kind === "file" ? { ...out, path: out.path.replace("DIR", folder) } : out;
    return await findLimit({
      name: entry.name,
      command: ["sh", "-c", entry.start.replaceAll("DIR", folder)],
      connect: { host: "127.0.0.1", port: 0 },
      message: templateMessage(entry.template, entry.frame ?? { kind: "line" }),
      output: {
        place,
        frame: entry.outFrame ?? { kind: "line" },
        match: entry.outMatch,
        // Replies have no numbers.
        numbered: out.kind !== "replies",
      },
      precision: 0.03,
      signal,
      ...(entry.script === undefined ? {} : { script: parseScript(entry.script) }),
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function main(args: readonly string[]): Promise<number> {
  const { options } = parseCommandLine(spec, args);
  const { only } = options;
  const unknown = only?.find((name) => !ENTRIES.some((entry) => entry.name === name));
  if (unknown !== undefined) {
    throw new UsageError(`--only ${unknown}: use ${ENTRIES.map(({ name }) => name).join(", ")}`);
  }
  const machine = await describeMachine([]);
  const signal = interrupted();
  const rows: GalleryRow[] = [];
  for (const entry of ENTRIES) {
    if (only !== undefined && !only.includes(entry.name)) continue;
    const { name, does, advice = null } = entry;
    const version = versionOf(entry);
    const result = version === null ? null : await measure(entry, signal);
    if (signal.aborted) return 130;
    const row: GalleryRow = { name, package: entry.package, does, advice, version, result: null };
    if (result !== null) {
      const { outcome, message, limit, hoards, intake, output, overload, recovery } = result;
      row.result = { outcome, message, limit, hoards, intake, output, overload, recovery };
    }
    rows.push(row);
    printLine(formatGalleryRow(row).join("  "));
    if (row.result !== null) printLine(`    ${row.result.message}`);
  }
  printLine(formatTable([[...GALLERY_HEAD], ...rows.map(formatGalleryRow)]));
  printLine(formatMachine(machine));
  const result: GalleryResult = { schema: "speedlimit/gallery@1", environment: machine, rows };
  if (options.out !== undefined) writeResult(options.out, result);
  return 0;
}

if (import.meta.main) await runMain("gallery", main);
