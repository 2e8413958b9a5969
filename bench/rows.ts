/** The results of the benchmarks: rows with a target, as a table and as a file. */
import { writeFileSync } from "node:fs";
import { loadavg } from "node:os";
import type { Machine } from "../src/report/machine.ts";
import { environment } from "../src/kernel/environment.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import { runtimeVersions } from "./programs.ts";

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

/** The machine as it is now. */
export async function describeMachine(runtimes: readonly Runtime[]): Promise<Machine> {
  // What this benchmark itself runs on measures nothing.
  const { runtime: _runtime, kernelSource: _kernelSource, ...machine } = environment();
  return { ...machine, runtimes: await runtimeVersions(runtimes), loadBefore: loadavg()[0]! };
}

/** Writes a result as one JSON object. */
export function writeResult(file: string, result: object): void {
  writeFileSync(file, `${JSON.stringify(result, undefined, 2)}\n`);
}
