/** The machine that a benchmark was measured on. */
import type { Environment } from "../kernel/environment.ts";
import type { Runtime } from "../kernel/runtime.ts";

/** The machine and the versions of the runtimes that were measured on it. */
export type Machine = Omit<Environment, "runtime" | "kernelSource"> & {
  runtimes: Partial<Record<Runtime, string>>;
  /** Load average over one minute before the benchmark began: other programs would distort it. */
  loadBefore: number;
};

/** The machine in one line. */
export function formatMachine(machine: Machine): string {
  const { date, cpu, cores, kernel, congestionControl, runtimes, loadBefore } = machine;
  const versions = Object.entries(runtimes).map((entry) => entry.join(" ")).join(", ");
  return `${versions === "" ? "" : `${versions}; `}${cores} x ${cpu}, ${kernel}, ` +
    `${congestionControl ?? "unknown congestion control"}; load ${
      loadBefore.toFixed(1)
    } before; ${date}`;
}
