/** The kinds of source that a command line can name. A new kind is one more entry in `KINDS`. */
import { UnitError } from "../text/units.ts";
import { FILE_KIND } from "./file_source.ts";
import type { SourceKind, SourceOnCommandLine } from "./source.ts";
import { TCP_KIND } from "./tcp_source.ts";

/** The first that accepts a text has it. A file is last: nearly any text is a file name. */
const KINDS: readonly SourceKind[] = [TCP_KIND, FILE_KIND];

/** The forms of all kinds, as the placeholder of an option: `tcp://HOST:PORT|FILE|-`. */
export const SOURCE_FORMS: string = KINDS.map(({ form }) => form).join("|");

/** Parses a source as given on the command line. Throws a UnitError that lists the kinds. */
export function parseSource(text: string): SourceOnCommandLine {
  for (const { parse } of KINDS) {
    const source = parse(text);
    if (source !== undefined) return source;
  }
  throw new UnitError(`must be ${KINDS.map(({ words }) => words).join(", ")}`);
}
