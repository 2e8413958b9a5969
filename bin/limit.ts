/**
 * Measures the speed limit of a reader: the highest rate at which it keeps up.
 *
 *     deno task limit -- python3 my_reader.py {host} {port}
 */
import { main } from "../src/cli/limit.ts";
import { runMain } from "../src/cli/program.ts";

if (import.meta.main) await runMain("limit", main);
