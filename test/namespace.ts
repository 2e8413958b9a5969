/** Network namespaces that a test makes and removes: other hosts, and slow networks. */
import { execFileSync } from "node:child_process";
import process from "node:process";

const run = (line: string) => {
  const [program, ...args] = line.split(" ") as [string, ...string[]];
  execFileSync(program, args, { stdio: "pipe" });
};

export interface Namespace {
  /** What goes before a command that is to run in it. */
  run: string[];
  remove(): void;
}

export interface Host extends Namespace {
  /** Our address in the network between. */
  ours: string;
  /** Takes the other host's link down: from now on it receives nothing and sends nothing. */
  cut(): void;
}

let made = 0;

function makeNamespace(configure: (name: string) => void): Namespace & { name: string } {
  // Names of interfaces are at most 15 characters long, addresses are of this process alone.
  const name = `sl${process.pid % 100_000}${String.fromCharCode(97 + made++ % 26)}`;
  run(`ip netns add ${name}`);
  const remove = () => run(`ip netns del ${name}`);
  try {
    configure(name);
  } catch (error) {
    remove();
    throw error;
  }
  return { name, run: ["ip", "netns", "exec", name], remove };
}

/**
 * A host of its own, with a network between it and this one; `rate`: of the network from here to there, in
 * bytes a second, default unlimited. Throws where that is not permitted, or there is no `ip` or `tc`.
 */
export function makeHost(rate?: number): Host {
  const net = `10.${77 + process.pid % 100}.${(process.pid >> 7) % 250}`;
  const made = makeNamespace((name) => {
    run(`ip link add ${name}a type veth peer name ${name}b`);
    run(`ip link set ${name}b netns ${name}`);
    run(`ip addr add ${net}.1/24 dev ${name}a`);
    run(`ip link set ${name}a up`);
    run(`ip -n ${name} addr add ${net}.2/24 dev ${name}b`);
    run(`ip -n ${name} link set ${name}b up`);
    if (rate !== undefined) run(`tc qdisc add dev ${name}a root ${bucket(rate)}`);
  });
  const { name } = made;
  return {
    ...made,
    ours: `${net}.1`,
    cut: () => run(`ip -n ${name} link set ${name}b down`),
    remove() {
      // The namespace stays while a connection in it waits for an answer, and with it our address.
      run(`ip link del ${name}a`);
      made.remove();
    },
  };
}

/** A namespace whose loopback carries so many bytes a second. Throws as `makeHost`. */
export function makeSlowLoopback(rate: number): Namespace {
  return makeNamespace((name) => {
    run(`ip -n ${name} link set lo up`);
    run(`tc -n ${name} qdisc add dev lo root ${bucket(rate)}`);
  });
}

const bucket = (rate: number) => `tbf rate ${8 * rate}bit burst 256k latency 100ms`;
