/** Output files that are named on the command line. */
import { accessSync, constants, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { UnitError } from "../text/units.ts";

/**
 * The absolute path of an output file. Checks that its folder is writable, so that a mistake shows
 * before a long measurement. Throws a UnitError.
 */
export function parseOutFile(text: string): string {
  const path = resolve(text);
  try {
    accessSync(dirname(path), constants.W_OK);
  } catch {
    throw new UnitError("must be a file in a folder that can be written to");
  }
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) {
    throw new UnitError("must be a file, and is a folder");
  }
  return path;
}
