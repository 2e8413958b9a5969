/** Writes reports to files, and finds out what standard output can display. */
import { writeFileSync } from "node:fs";
import process from "node:process";

/** Columns when standard output is a file, or a terminal that does not report its width. */
const DEFAULT_WIDTH = 80;

/** Throws an Error of one line when the file cannot be written. */
export function writeText(path: string, text: string): void {
  try {
    writeFileSync(path, text);
  } catch (cause) {
    throw new Error(`cannot write ${path}: ${(cause as Error).message}`, { cause });
  }
}

/** Columns of standard output, and whether to use colours: only on a terminal, and not with NO_COLOR. */
export function terminal(): { width: number; color: boolean } {
  const { stdout } = process;
  if (stdout.isTTY !== true) return { width: DEFAULT_WIDTH, color: false };
  return { width: stdout.columns ?? DEFAULT_WIDTH, color: !colorDisabled() };
}

/** NO_COLOR is set and not empty (https://no-color.org), or the terminal cannot show colours. */
function colorDisabled(): boolean {
  try {
    return (process.env.NO_COLOR ?? "") !== "" || process.env.TERM === "dumb";
  } catch {
    // Deno without --allow-env: NO_COLOR may be set.
    return true;
  }
}
