/** Escapes in text from the command line and from files, as in C. */
import { UnitError } from "./units.ts";

const ESCAPES: Record<string, string> = { n: "\n", t: "\t", r: "\r", "0": "\0", "\\": "\\" };

/** Replaces \n, \t, \r, \0 and \\. Throws a UnitError for others. */
export function unescape(text: string): string {
  return text.replace(/\\(.?)/gs, (_, letter: string) => {
    const escaped = ESCAPES[letter];
    if (escaped === undefined) {
      throw new UnitError("must use \\n, \\t, \\r, \\0 or \\\\ as escapes");
    }
    return escaped;
  });
}

/** The same in UTF-8, with `\xHH` for any byte as well. Throws a UnitError. */
export function unescapeBytes(text: string): Uint8Array {
  const encoder = new TextEncoder();
  const pieces: Uint8Array[] = [];
  let at = 0;
  for (const match of text.matchAll(/\\x([0-9a-f]{2})|\\./gis)) {
    if (match[1] === undefined) continue;
    pieces.push(encoder.encode(unescape(text.slice(at, match.index))));
    pieces.push(Uint8Array.of(Number.parseInt(match[1], 16)));
    at = match.index + match[0].length;
  }
  pieces.push(encoder.encode(unescape(text.slice(at))));
  const bytes = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let filled = 0;
  for (const piece of pieces) {
    bytes.set(piece, filled);
    filled += piece.length;
  }
  return bytes;
}
