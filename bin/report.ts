/**
 * Results as a table, a page or a picture; two of them compared.
 *
 *     deno task report bench/results/latest.json --html report.html
 */
import { main } from "../src/cli/report.ts";
import { runMain } from "../src/cli/program.ts";

if (import.meta.main) await runMain("report", main);
