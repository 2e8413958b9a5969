/** Parts that the results of several benchmarks have in common: targets, machine, file. */
import { writeFileSync } from "node:fs";
import { loadavg } from "node:os";
import { environment } from "../src/kernel/environment.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import type { Machine } from "../src/report/machine.ts";
import { runtimeVersions } from "./programs.ts";

/** The range that a figure should be in, bounds included. */
export interface Target {
  least?: number;
  most?: number;
}

/** Whether a figure is within its target. */
export function meets(value: number, { least = -Infinity, most = Infinity }: Target): boolean {
  return value >= least && value <= most;
}

/** The distance of a figure from its target; 0 when it is within. */
export function missedBy(value: number, { least = -Infinity, most = Infinity }: Target): number {
  return value < least ? least - value : value > most ? value - most : 0;
}

/** The column heads of a table of figures with their references. */
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

/** Describes this machine, and the versions of these runtimes. */
export async function describeMachine(runtimes: readonly Runtime[]): Promise<Machine> {
  // The runtime of the benchmark itself does not affect the figures.
  const { runtime: _runtime, kernelSource: _kernelSource, ...machine } = environment();
  return { ...machine, runtimes: await runtimeVersions(runtimes), loadBefore: loadavg()[0]! };
}

/** Writes a result as one JSON object. */
export function writeResult(file: string, result: object): void {
  writeFileSync(file, `${JSON.stringify(result, undefined, 2)}\n`);
}
