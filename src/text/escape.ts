/** Text in a page or a picture: whatever a reader calls itself stays text. */

const ENTITIES: Record<string, string> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/**
 * Text for HTML and XML, between tags and in quoted attributes. Characters that XML 1.0 does not
 * have, section 2.2, become U+FFFD, as do halves of surrogate pairs.
 */
export function escapeMarkup(text: string): string {
  return text.toWellFormed()
    // deno-lint-ignore no-control-regex
    .replace(/[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]/g, "\ufffd")
    .replace(/[&<>"']/g, (char) => ENTITIES[char]!);
}

/** A value as JSON that can stand in a script element: no character of it ends one or opens a comment. */
export function embeddedJson(value: unknown): string {
  return JSON.stringify(value).replace(
    /[<>&\u2028\u2029]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
