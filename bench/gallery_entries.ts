/** The readers of bench/gallery.ts: programs of Debian packages, each with how it is started and counted. */
import type { Frame } from "../src/message/framer.ts";
import type { OutputPlace } from "../src/output/output.ts";

export interface Entry {
  name: string;
  /** The Debian package, and the program of it that has to be there. */
  package: string;
  program: string;
  /** What it is asked to do, as a clause. */
  does: string;
  /**
   * For `sh -c`; DIR is a folder of its own. It listens on {port} of 127.0.0.1, and passes on to {out} where the output
   * is `connect`.
   */
  start: string;
  /** See src/message/template.ts. */
  template: string;
  frame?: Frame;
  script?: string;
  /** `file:DIR/out`, `replies` or `connect:{out}`. */
  out: OutputPlace;
  outFrame?: Frame;
  outMatch?: RegExp;
  /** What its configuration can do about the limit, where that was measured. */
  advice?: string;
}

const FILE: OutputPlace = { kind: "file", path: "DIR/out" };
const SYSLOG = "<13>1 {time} host app - - - {seq} {pad:60}";

/** Writes its standard input to a file. */
const conf = (name: string, text: string) => `cat >DIR/${name} <<'END'\n${text}\nEND\n`;

export const ENTRIES: readonly Entry[] = [
  {
    name: "rsyslog",
    package: "rsyslog",
    program: "rsyslogd",
    does: "imtcp to a file",
    start: conf(
      "conf",
      `global(workDirectory="DIR")
module(load="imtcp")
input(type="imtcp" address="127.0.0.1" port="{port}")
action(type="omfile" file="DIR/out")`,
    ) + "exec rsyslogd -n -f DIR/conf -i DIR/pid",
    template: SYSLOG,
    out: FILE,
  },
  {
    name: "syslog-ng",
    package: "syslog-ng-core",
    program: "syslog-ng",
    does: "network() to a file",
    start: conf(
      "conf",
      `@version: 3.38
options { stats-freq(0); };
source s { network(ip("127.0.0.1") port({port}) transport("tcp") flags(syslog-protocol)); };
destination d { file("DIR/out"); };
log { source(s); destination(d); };`,
    ) + "exec syslog-ng -F --no-caps -f DIR/conf -R DIR/persist -p DIR/pid -c DIR/ctl",
    template: SYSLOG,
    out: FILE,
  },
  {
    name: "socat",
    package: "socat",
    program: "socat",
    does: "a connection to a file",
    start: "exec socat -u TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr OPEN:DIR/out,creat,append",
    template: "{seq} {pad:80}",
    out: FILE,
  },
  {
    name: "netcat",
    package: "netcat-openbsd",
    program: "nc.openbsd",
    does: "a connection to a file",
    start: "exec nc.openbsd -l 127.0.0.1 {port} >DIR/out",
    template: "{seq} {pad:80}",
    out: FILE,
  },
  {
    name: "nginx",
    package: "nginx-light libnginx-mod-stream",
    program: "nginx",
    does: "a stream proxy",
    start: conf(
      "conf",
      `load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; master_process off; pid DIR/pid; error_log DIR/error;
events {}
stream { server { listen 127.0.0.1:{port}; proxy_pass {out}; } }`,
    ) + "exec nginx -p DIR -c DIR/conf",
    template: "{seq} {pad:80}",
    out: { kind: "connect" },
  },
  {
    name: "HAProxy",
    package: "haproxy",
    program: "haproxy",
    does: "a TCP proxy",
    start: conf(
      "conf",
      `defaults
  mode tcp
  timeout connect 5s
  timeout client 1m
  timeout server 1m
frontend in
  bind 127.0.0.1:{port}
  default_backend out
backend out
  server one {out}`,
    ) + "exec haproxy -db -f DIR/conf",
    template: "{seq} {pad:80}",
    out: { kind: "connect" },
  },
  {
    name: "Redis",
    package: "redis-server",
    program: "redis-server",
    does: "SET, without persistence",
    start: "exec redis-server --port {port} --bind 127.0.0.1 --save '' --dir DIR",
    template: "SET key {seq}\r\n",
    out: { kind: "replies" },
  },
  {
    name: "memcached",
    package: "memcached",
    program: "memcached",
    does: "set",
    start: "exec memcached -u nobody -l 127.0.0.1 -p {port} -U 0",
    template: "set key 0 0 10\r\n{seq}\r\n",
    frame: { kind: "none" },
    out: { kind: "replies" },
    outMatch: /^STORED/,
  },
  {
    name: "Mosquitto",
    package: "mosquitto mosquitto-clients",
    program: "mosquitto_sub",
    does: "PUBLISH with QoS 0, to one subscriber",
    start: conf("conf", "listener {port} 127.0.0.1\nallow_anonymous true") +
      "mosquitto -c DIR/conf & " +
      "until mosquitto_sub -h 127.0.0.1 -p {port} -t ticks; do sleep 0.05; done >DIR/out",
    // CONNECT with client "a"; CONNACK. Then PUBLISH to "ticks": type, length, topic, payload.
    script:
      "send \\x10\\x0d\\x00\\x04MQTT\\x04\\x02\\x00\\x00\\x00\\x01a\nexpect \\x20\\x02\\x00\\x00\n",
    template: "\x30\x11\0\x05ticks{seq}",
    frame: { kind: "none" },
    out: FILE,
  },
  {
    name: "Twisted",
    package: "python3-twisted",
    program: "twistd3",
    does: "LineOnlyReceiver, each line to a file",
    start: conf(
      "reader.py",
      `from twisted.internet import protocol, reactor
from twisted.protocols.basic import LineOnlyReceiver

out = open("DIR/out", "ab")

class Lines(LineOnlyReceiver):
    delimiter = b"\\n"
    def lineReceived(self, line):
        out.write(line + b"\\n")

reactor.listenTCP({port}, protocol.Factory.forProtocol(Lines), interface="127.0.0.1")
reactor.run()`,
    ) + "exec /usr/bin/python3 DIR/reader.py",
    template: "{seq} {pad:80}",
    out: FILE,
  },
  {
    name: "Python's socketserver",
    package: "python3",
    program: "python3",
    does: "StreamRequestHandler, each line to a file",
    start: conf(
      "reader.py",
      `import socketserver

class Lines(socketserver.StreamRequestHandler):
    def handle(self):
        with open("DIR/out", "ab") as out:
            for line in self.rfile:
                out.write(line)

socketserver.TCPServer.allow_reuse_address = True
socketserver.TCPServer(("127.0.0.1", {port}), Lines).serve_forever()`,
    ) + "exec python3 DIR/reader.py",
    template: "{seq} {pad:80}",
    out: FILE,
  },
];
