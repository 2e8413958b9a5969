/**
 * Measures which bursts a reader survives, at which base rates.
 *
 *     deno task map -- python3 my_reader.py {host} {port}
 */
import { main } from "../src/cli/map.ts";
import { runMain } from "../src/cli/program.ts";

if (import.meta.main) await runMain("map", main);
