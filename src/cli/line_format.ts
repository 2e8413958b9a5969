/** How lines for people begin: what they are told when, and how serious it is. */

/** `info`: all is well; `warn`: something did not work, and is dealt with; `error`: something is lost. */
export type Level = "info" | "warn" | "error";

/**
 * `plain`: as they are; `time`: with the time (UTC, ISO 8601 with ms) and the level; `journal`: with the
 * priority that systemd's journal takes from a line (sd-daemon(3)), which adds the time itself.
 */
export const LINE_FORMATS = ["plain", "time", "journal"] as const;
export type LineFormat = typeof LINE_FORMATS[number];

/** As in syslog(3). */
const PRIORITIES: Readonly<Record<Level, number>> = { error: 3, warn: 4, info: 6 };

/** The text with a beginning for each of its lines. */
export function formatLines(text: string, level: Level, format: LineFormat): string {
  if (format === "plain") return text;
  const start = format === "time"
    ? `${new Date().toISOString()} ${level} `
    : `<${PRIORITIES[level]}>`;
  return text.replace(/^/gm, start);
}
