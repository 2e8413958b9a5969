/** A small HTTP server that tells how a program does: for Prometheus, and for probes. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Address } from "../kernel/address.ts";
import { NetError } from "../net/net.ts";
import { formatHostPort, type HostPort } from "../text/units.ts";
import { EXPOSITION_TYPE } from "./exposition.ts";

/** How long a client may take for its request; ms. */
const REQUEST_MS = 5000;
const TEXT = "text/plain; charset=utf-8";

export interface StatusPages {
  /** For `/metrics`: text in the exposition format. */
  metrics(): string;
  /** For `/readyz`: why not, in one line; undefined: it is ready. */
  notReady(): string | undefined;
}

export interface StatusServer {
  readonly address: Address;
  /** Ends all connections. */
  close(): Promise<void>;
}

interface Answer {
  status: number;
  text: string;
  type?: string;
}

const PAGES: Readonly<Record<string, (pages: StatusPages) => Answer>> = {
  "/metrics": (pages) => ({ status: 200, text: pages.metrics(), type: EXPOSITION_TYPE }),
  "/healthz": () => ({ status: 200, text: "ok\n" }),
  "/readyz": (pages) => {
    const why = pages.notReady();
    return why === undefined
      ? { status: 200, text: "ready\n" }
      : { status: 503, text: `not ready: ${why}\n` };
  },
};

/** Listens for GET and HEAD of `/metrics`, `/healthz` and `/readyz`. Rejects with a NetError. */
export async function listenForStatus(at: HostPort, pages: StatusPages): Promise<StatusServer> {
  // Only here: most runs of a program need no HTTP.
  const { createServer } = await import("node:http");
  const server = createServer((request, response) => respond(request, response, pages));
  server.headersTimeout = server.requestTimeout = REQUEST_MS;
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const what = `cannot listen on ${formatHostPort(at)} for --metrics`;
      reject(new NetError(what, error.code ?? error.name, error));
    });
    server.listen(at.port, at.host, () => resolve());
  });
  // A client that breaks off, or descriptors that run out, must not end the program.
  server.on("error", () => {});
  const { port } = server.address() as AddressInfo;
  return {
    address: { host: at.host, port },
    close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      return closed;
    },
  };
}

function respond(request: IncomingMessage, response: ServerResponse, pages: StatusPages): void {
  const { status, text, type = TEXT } = answer(request, pages);
  const bytes = new TextEncoder().encode(text);
  response.writeHead(status, {
    "Content-Type": type,
    "Content-Length": bytes.length,
    // Nobody asks so often that the next connection matters, and none stays open at the end.
    "Connection": "close",
    ...(status === 405 ? { "Allow": "GET, HEAD" } : {}),
  });
  if (request.method === "HEAD") response.end();
  else response.end(bytes);
}

function answer({ method, url = "" }: IncomingMessage, pages: StatusPages): Answer {
  const path = url.split("?", 1)[0]!;
  const page = Object.hasOwn(PAGES, path) ? PAGES[path] : undefined;
  if (page === undefined) {
    return { status: 404, text: `no such page: there are ${Object.keys(PAGES).join(", ")}\n` };
  }
  if (method !== "GET" && method !== "HEAD") {
    return { status: 405, text: "only GET and HEAD are answered\n" };
  }
  try {
    return page(pages);
  } catch (error) {
    return { status: 500, text: `${(error as Error).message}\n` };
  }
}
