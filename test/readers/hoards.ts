/**
 * A reader for reader_work_test.ts, as hoards.py beside it:
 *
 *     hoards.ts HOST PORT KIND MICROSECONDS
 *
 *     flows    a promise a message, and the socket flows on
 *     holds    pauses the socket while it works
 *     timer    as flows, and wakes up 100 times a second beside it
 *     slow     holds, and wakes up 100 times a second: what it does for messages does not show
 */
import { connect } from "node:net";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";

const [host, port, kind, microseconds] = process.argv.slice(2);
const costMs = Number(microseconds) / 1000;
const SLACK_MS = 20;
let dueMs = 0;
let waiting = 0;
let works = false;

const socket = connect(Number(port), host!);
socket.on("error", () => process.exit(0));
socket.on("close", () => process.exit(0));

async function work(): Promise<void> {
  if (works) return;
  works = true;
  while (waiting > 0) {
    waiting--;
    const now = performance.now();
    dueMs = Math.max(dueMs, now - SLACK_MS) + costMs;
    if (dueMs - now > 1) await sleep(dueMs - now);
  }
  works = false;
  process.stderr.write(`idle ${performance.timeOrigin + performance.now()}\n`);
  socket.resume();
}

socket.on("data", (chunk) => {
  waiting += chunk.length;
  if (kind === "holds" || kind === "slow") socket.pause();
  void work();
});
process.stderr.write(`idle ${performance.timeOrigin + performance.now()}\n`);
if (kind === "timer" || kind === "slow") setInterval(() => {}, 10);
