/** Files that commands are told to write. */
import { accessSync, constants } from "node:fs";
import { dirname, resolve } from "node:path";
import { UnitError } from "../text/units.ts";

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
