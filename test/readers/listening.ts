/**
 * A reader that listens: `listening.ts HOST PORT BEHAVIOUR`.
 *
 * - `reads`: takes what comes, on any number of connections;
 * - `closes after each message`: closes a connection as soon as something has come.
 */
import { createServer } from "node:net";
import process from "node:process";

const [host, port, behaviour] = process.argv.slice(2) as [string, string, string];
createServer((socket) => {
  socket.on("error", () => {});
  socket.on("data", () => {
    if (behaviour === "closes after each message") socket.destroy();
  });
}).listen(Number(port), host, () => console.log("listening"));
