/**
 * The README's figures, from the committed results: nothing between its markers is written by hand.
 *
 *     npm run readme               # after a new results file
 *     npm run readme -- --check    # exit 1 when the README does not match the results
 */
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { flag, parseCommandLine } from "../src/command_line.ts";
import { formatInterval } from "../src/limit_table.ts";
import { print, runMain } from "../src/program.ts";
import { formatByteRate, formatCount, formatSeconds } from "../src/units.ts";
import { ACCURACY_HEAD, type AccuracyRow, formatAccuracyRow } from "./accuracy_rows.ts";
import { formatMachine, type Machine, ROW_HEAD } from "./rows.ts";
import { formatSpeedRow, type SpeedRow } from "./speed_rows.ts";

const ROOT = new URL("../", import.meta.url);

interface Results<Row> {
  environment: Machine;
  rows: Row[];
}

const read = <Row>(name: string): Results<Row> =>
  JSON.parse(readFileSync(new URL(`results/${name}.json`, ROOT), "utf8"));

function markdown(rows: readonly (readonly string[])[]): string {
  const [head, ...body] = rows.map((cells) =>
    `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`
  );
  return [head, `|${"---|".repeat(rows[0]!.length)}`, ...body].join("\n");
}

const machineLine = ({ environment }: { environment: Machine }) => `${formatMachine(environment)}.`;

/** The first table: the article's two readers in Python. */
function limitTable(): string {
  const results = read<AccuracyRow>("python");
  const rows = results.rows.flatMap((row) => {
    if (row.kind !== "reader") return [];
    const { limit, overload, recovery } = row.found;
    if (limit === null || overload === null || recovery === null) {
      throw new Error(`results/python.json: no limit of ${row.what}: ${row.found.message}`);
    }
    return [[
      `${row.what} (server on ${row.runtime})`,
      formatInterval(limit.lower, limit.upper),
      `${formatCount(Math.round(limit.messagesPerSecond))}/s`,
      `drains ${formatByteRate(overload.drained)}${overload.collapsed ? ": **collapsed**" : ""}`,
      recovery.recovered
        ? `clears its backlog in ${formatSeconds(recovery.seconds)}`
        : "does not recover",
    ]];
  });
  const head = [
    "reader",
    "speed limit",
    "13-byte messages",
    "offered twice that",
    "then half of it",
  ];
  return `${markdown([head, ...rows])}\n\n${machineLine(results)}`;
}

function accuracyTable(): string {
  const results = read<AccuracyRow>("accuracy");
  const rows = results.rows.filter(({ kind }) => kind !== "reader").map(formatAccuracyRow);
  return `${markdown([[...ACCURACY_HEAD], ...rows])}\n\n${machineLine(results)}`;
}

function speedTable(): string {
  const results = read<SpeedRow>("speed");
  const rows = results.rows.map(formatSpeedRow);
  return `${markdown([[...ROW_HEAD], ...rows])}\n\n${machineLine(results)}`;
}

const SECTIONS: Record<string, () => string> = {
  limit: limitTable,
  accuracy: accuracyTable,
  speed: speedTable,
};

function fill(readme: string): string {
  for (const [name, make] of Object.entries(SECTIONS)) {
    const between = new RegExp(
      `(<!-- ${name}: begin[^\\n]*-->\\n)[\\s\\S]*?(<!-- ${name}: end -->)`,
    );
    if (!between.test(readme)) throw new Error(`README.md has no markers for ${name}`);
    const table = make();
    readme = readme.replace(between, (_, begin: string, end: string) => `${begin}${table}\n${end}`);
  }
  return readme;
}

const spec = {
  name: "readme",
  summary: "Writes the figures of results/ into README.md.",
  usage: ["readme.ts [--check]"],
  options: { check: flag("writes nothing; exit 1 when README.md does not match") },
};

function main(args: readonly string[]): number {
  const { options } = parseCommandLine(spec, args);
  const file = fileURLToPath(new URL("README.md", ROOT));
  const before = readFileSync(file, "utf8");
  const after = fill(before);
  if (before === after) {
    print("README.md matches results/");
    return 0;
  }
  if (options.check) {
    throw new Error("README.md does not match results/: run npm run readme");
  }
  writeFileSync(file, after);
  print("README.md: figures renewed");
  return 0;
}

if (import.meta.main) await runMain("readme", main);
