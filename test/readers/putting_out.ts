/**
 * A reader that takes all lines at once and puts them out at a rate of its own:
 * `putting_out.ts HOST PORT LINES_PER_SECOND BOUND PLACE`.
 *
 * At most BOUND lines wait in its memory; what comes then is dropped. PLACE: `stdout`, `replies`, `file:PATH` or
 * HOST:PORT, where it connects.
 */
import { appendFileSync } from "node:fs";
import { connect } from "node:net";
import process from "node:process";

const [host, port, rate, bound, place] = process.argv.slice(2) as [
  string,
  string,
  string,
  string,
  string,
];
const socket = connect(Number(port), host);
socket.on("error", () => process.exit(0)).on("end", () => process.exit(0));

function opened(): (text: string) => void {
  if (place === "stdout") return (text) => void process.stdout.write(text);
  if (place === "replies") return (text) => void socket.write(text);
  if (place.startsWith("file:")) return (text) => appendFileSync(place.slice(5), text);
  const [outHost, outPort] = place.split(":") as [string, string];
  const out = connect(Number(outPort), outHost).on("error", () => {});
  return (text) => void out.write(text);
}
const putOut = opened();

const waiting: string[] = [];
let first = 0;
let rest = "";
socket.setEncoding("latin1").on("data", (text: string) => {
  const lines = (rest + text).split("\n");
  rest = lines.pop()!;
  for (const line of lines) if (waiting.length - first < Number(bound)) waiting.push(`${line}\n`);
});

/** What it makes up for when it is late; ms. */
const LATE_MS = 20;
let doneMs = performance.now();
setInterval(() => {
  const now = performance.now();
  doneMs = Math.max(doneMs, now - LATE_MS);
  const due = Math.floor((now - doneMs) * Number(rate) / 1000);
  const lines = waiting.slice(first, first + due);
  if (lines.length === 0) {
    doneMs = now;
    return;
  }
  doneMs += lines.length * 1000 / Number(rate);
  first += lines.length;
  putOut(lines.join(""));
  if (first > 100_000) waiting.splice(0, first), first = 0;
}, 2);
