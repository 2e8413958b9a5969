/**
 * A reader that speaks first: `subscribing.ts HOST PORT BEHAVIOUR`.
 *
 * - `subscribes`: says SUBSCRIBE, wants +OK, and says PING each 20 ms. It reads lines, "tick NUMBER" in order or
 *   PONG, and exits with 7, 8 or 9 where there is no +OK, another line, or no PONG for 2 s;
 * - `says something else`: says HELLO.
 */
import { connect } from "node:net";
import process from "node:process";

const [host, port, behaviour] = process.argv.slice(2) as [string, string, string];
const fail = (status: number, why: string) => {
  process.stderr.write(`error: ${why}\n`, () => process.exit(status));
};

const socket = connect(Number(port), host, () => {
  socket.write(behaviour === "subscribes" ? "SUBSCRIBE ticks\n" : "HELLO\x1b[31m\n");
});
socket.on("error", () => process.exit(0));
socket.on("end", () => process.exit(0));

let rest = "";
let subscribed = false;
let next: number | undefined;
let pongAtMs = performance.now();
socket.setEncoding("latin1").on("data", (text: string) => {
  const lines = (rest + text).split("\n");
  rest = lines.pop()!;
  for (const line of lines) {
    if (!subscribed) {
      if (line !== "+OK") fail(7, `subscribing failed: ${line}`);
      subscribed = true;
      setInterval(() => {
        socket.write("PING\n");
        if (performance.now() - pongAtMs > 2000) fail(9, "no PONG");
      }, 20);
    } else if (line === "PONG") pongAtMs = performance.now();
    else {
      const number = Number(/^tick (\d{10})$/.exec(line)?.[1]);
      if (number !== (next ?? number)) fail(8, `not tick ${next}: ${JSON.stringify(line)}`);
      next = number + 1;
    }
  }
});
