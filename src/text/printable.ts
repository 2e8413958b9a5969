/** Makes what a stranger wrote safe to print: a terminal obeys some characters, a page others. */

/**
 * What terminals take for a command (ECMA-48): strings for the terminal (OSC, DCS, APC, PM, SOS) up
 * to their end or that of the line, control sequences (CSI), and escapes of two or more characters.
 */
const ESCAPES =
  // deno-lint-ignore no-control-regex
  /(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?|\x1b[ -/]*[0-~]/g;
/** Change the order in which the characters around them are shown (UAX 9). */
const BIDI = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
const SPACES = /[\t-\r\x85\u2028\u2029]+/g;
/** The other characters of C0 and C1, and DEL. */
// deno-lint-ignore no-control-regex
const CONTROLS = /[\x00-\x1f\x7f-\x9f]/g;

/**
 * One line of text without control characters: escape sequences and controls of the direction of
 * writing are removed, breaks and tabs become a space, other control characters and unpaired
 * surrogates become U+FFFD.
 */
export function printable(text: string): string {
  return text.toWellFormed()
    .replace(ESCAPES, "")
    .replace(BIDI, "")
    .replace(SPACES, " ")
    .replace(CONTROLS, "\ufffd");
}
