/**
 * Readers that do not do what a reader should, for limit_test.ts:
 *
 *     misbehaving.ts HOST PORT BEHAVIOUR [PIDS]
 *
 * Each adds its process id to the file PIDS, a line, and so do the processes that it starts.
 */
import { Buffer } from "node:buffer";
import { spawn } from "node:child_process";
import { appendFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import process from "node:process";

const [host, port, behaviour, pids] = process.argv.slice(2);
const SOME_BYTES = 100_000;
const REPLY = new Uint8Array(65_536).fill(46);

const open = (then: (socket: Socket) => void = () => {}): Socket => {
  const socket = connect(Number(port), host!, () => then(socket));
  // How it ends is the server's business.
  socket.on("error", () => process.exit(0));
  return socket;
};

/** Reads on, and calls back once it has had enough. */
const readSome = (then: (socket: Socket) => void): void => {
  let bytes = 0;
  const socket = open();
  socket.on("data", (chunk) => {
    if (bytes < SOME_BYTES && bytes + chunk.length >= SOME_BYTES) then(socket);
    bytes += chunk.length;
  });
};

/** Reads, and stays when its connection has ended. */
const readForever = (): void => {
  connect(Number(port), host!).on("error", () => {}).resume();
  stay();
};

/** Whatever else happens, no reader of a test outlives it for long. */
const stay = () => void setTimeout(() => {}, 60_000);

const acts: Record<string, () => void> = {
  "exits at once": () => process.exit(3),
  "dies at once": () => process.kill(process.pid, "SIGKILL"),
  "complains and exits": () => {
    process.stderr.write("first line\nmy configuration is missing\n");
    process.exitCode = 4;
  },
  // What terminals obey, and a character in two pieces.
  "complains in control characters"() {
    const rest = Buffer.from("é\x1b]0;title\x07\x1b[2J\x9b31mred\u202e\r\n");
    process.stderr.write(Buffer.concat([Buffer.from("\x1b[31merror: "), rest.subarray(0, 1)]));
    setTimeout(() => process.stderr.write(rest.subarray(1), () => process.exit(4)), 100);
  },
  "exits after some bytes": () => readSome(() => process.exit(5)),
  "never connects": stay,
  "connects and never reads"() {
    open().pause();
    stay();
  },
  "connects and exits": () => void open(() => process.exit(6)),
  "resets after some bytes"() {
    readSome((socket) => socket.resetAndDestroy());
    stay();
  },
  "closes after some bytes"() {
    readSome((socket) => socket.destroy());
    stay();
  },
  // One reply for each read, and no read before the reply has gone: what the article's reader does.
  "replies without end"() {
    const socket = open();
    socket.on("data", () => {
      if (socket.write(REPLY)) return;
      socket.pause();
      socket.once("drain", () => socket.resume());
    });
  },
  "looks first whether anybody listens"() {
    open((socket) => {
      socket.destroy();
      setTimeout(() => open().resume(), 200);
    });
  },
  "connects three times": () => [1, 2, 3].forEach(() => open().resume()),
  "ignores SIGTERM"() {
    process.on("SIGTERM", () => {});
    open().pause();
    stay();
  },
  "reads, and ignores SIGTERM"() {
    process.on("SIGTERM", () => {});
    readForever();
  },
  // Long after the 300 ms that a stubborn reader gets, and it says so.
  "reads, and needs a second to end"() {
    process.on("SIGTERM", () => {
      setTimeout(() => {
        note("ended in order");
        process.exit(0);
      }, 1000);
    });
    readForever();
  },
  // The grandchild is no reader: nothing but the process group leads to it.
  "leaves a grandchild"() {
    const grandchild = spawn("sleep", ["60"], { stdio: "ignore" });
    note(grandchild.pid!);
    grandchild.unref();
    readSome(() => process.exit(7));
  },
  // A network that drops every connection sooner or later, and a reader that comes back each time.
  "reconnects after each close"() {
    let longest = 300_000;
    const again = () => {
      let bytes = 0;
      const socket = open();
      socket.on("data", (chunk) => {
        bytes += chunk.length;
        if (bytes >= longest) socket.destroy();
      });
      socket.on("close", () => {
        // Short lives first, so that a trial's second chance is a longer one.
        if (bytes >= longest) longest *= 16;
        else process.exit(0);
        again();
      });
    };
    again();
  },
  // As one does that loads a model, or warms up, once it is connected.
  "begins to read after a second"() {
    const socket = open().pause();
    setTimeout(() => socket.resume(), 1000);
  },
  "reads well"() {
    open().resume();
  },
};

function note(what: number | string): void {
  if (pids !== undefined) appendFileSync(pids, `${what}\n`);
}

note(process.pid);
acts[behaviour!]!();
