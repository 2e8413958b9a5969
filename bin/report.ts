/**
 * Shows results as tables, as a page or as a picture, and compares two result files.
 *
 *     deno task report bench/results/latest.json --html report.html
 */
import { main } from "../src/cli/report.ts";
import { runMain } from "../src/cli/program.ts";

if (import.meta.main) await runMain("report", main);
