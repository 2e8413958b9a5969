/** The results of the benchmarks: rows with a target, as a table and as a file. */
import { accessSync, constants, writeFileSync } from "node:fs";
import { loadavg } from "node:os";
import { dirname, resolve } from "node:path";
import { type Environment, environment } from "../src/environment.ts";
import { type Runtime, runtimeVersions } from "./programs.ts";
import { UnitError } from "../src/units.ts";

/** What a figure must be; both included. */
export interface Target {
  least?: number;
  most?: number;
}

/** Whether a figure is what it must be. */
export function meets(value: number, { least = -Infinity, most = Infinity }: Target): boolean {
  return value >= least && value <= most;
}

/** How far a figure is from what it must be; 0 when it is that. */
export function missedBy(value: number, { least = -Infinity, most = Infinity }: Target): number {
  return value < least ? least - value : value > most ? value - most : 0;
}

/** The first line of a table of figures, each beside what it is measured against. */
export const ROW_HEAD: readonly string[] = [
  "what",
  "runtime",
  "median",
  "least-most",
  "against",
  "ratio",
  "target",
  "verdict",
];

/** A share in percent, with its sign: `+0.12 %`. */
export function formatDeviation(share: number, digits = 2): string {
  const percent = (share * 100).toFixed(digits).replace(/^-(?=[0.]*$)/, "");
  return `${percent.startsWith("-") ? "" : "+"}${percent} %`;
}

/** The machine and the versions of the runtimes that were measured on it. */
export type Machine = Omit<Environment, "runtime" | "kernelSource"> & {
  runtimes: Partial<Record<Runtime, string>>;
  /** What ran here already, as a load average over one minute: a busy machine measures itself. */
  loadBefore: number;
};

/** The machine as it is now. */
export async function describeMachine(runtimes: readonly Runtime[]): Promise<Machine> {
  // What this benchmark itself runs on measures nothing.
  const { runtime: _runtime, kernelSource: _kernelSource, ...machine } = environment();
  return { ...machine, runtimes: await runtimeVersions(runtimes), loadBefore: loadavg()[0]! };
}

/** The machine in one line. */
export function formatMachine(machine: Machine): string {
  const { date, cpu, cores, kernel, congestionControl, runtimes, loadBefore } = machine;
  const versions = Object.entries(runtimes).map((entry) => entry.join(" ")).join(", ");
  return `${versions}; ${cores} x ${cpu}, ${kernel}, ` +
    `${congestionControl ?? "unknown congestion control"}; load ${
      loadBefore.toFixed(1)
    } before; ${date}`;
}

/** The path of a file that can be written: better to know before a benchmark than after it. */
export function parseOutFile(text: string): string {
  const path = resolve(text);
  try {
    accessSync(dirname(path), constants.W_OK);
  } catch {
    throw new UnitError("must be a file in a folder that can be written to");
  }
  return path;
}

/** Writes a result as one JSON object. */
export function writeResult(file: string, result: object): void {
  writeFileSync(file, `${JSON.stringify(result, undefined, 2)}\n`);
}
