"""What a reader's calls return after its server has closed the connection, and which segments were sent.

    python3 errors.py

Prints one JSON object: `cases`, each with `server`, `calls` (pairs of a call and its outcome) and
`segments` (absent where packets cannot be seen: that needs CAP_NET_RAW). Both ends are in this process.
"""
import errno
import json
import select
import socket
import struct
import sys

MESSAGE = b"Hello World!\0"
REPLY = b"Hi i got the data"
# Every wait ends after this: seconds.
DEADLINE = 5
# linux/if_ether.h: IPv4. What such a socket gets is what arrives, and on loopback everything does.
ETH_P_IP = 0x0800
FLAGS = [(0x02, "SYN"), (0x01, "FIN"), (0x04, "RST")]


class Packets:
    """The segments between two ports of the loopback device."""

    def __init__(self):
        self.socket = None
        try:
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP))
            self.socket.bind(("lo", ETH_P_IP))
            self.socket.setblocking(False)
        except (AttributeError, OSError):
            pass

    def read(self, reader_port, server_port):
        """What was sent since the last call; None where it cannot be seen."""
        if self.socket is None:
            return None
        segments = []
        while True:
            try:
                frame = self.socket.recv(65535)
            except BlockingIOError:
                return segments
            if frame[23] != socket.IPPROTO_TCP:
                continue
            ip = frame[14:]
            tcp = ip[4 * (ip[0] & 15):]
            source, target, _, _, offset, flags, window = struct.unpack("!HHIIBBH", tcp[:16])
            if {source, target} != {reader_port, server_port}:
                continue
            size = struct.unpack("!H", ip[2:4])[0] - 4 * (ip[0] & 15) - 4 * (offset >> 4)
            words = [name for flag, name in FLAGS if flags & flag]
            if size > 0:
                words.append("%d bytes" % size)
            if window == 0 and not flags & 0x04:
                words.append("window 0")
            if not words:
                words.append("ACK")
            segments.append(("reader" if source == reader_port else "server") + ": " + ", ".join(words))


def wait(sock, events, what):
    poll = select.poll()
    poll.register(sock, events)
    if not poll.poll(1000 * DEADLINE):
        raise SystemExit("errors.py: waited %d s for %s" % (DEADLINE, what))


def call(reader, name):
    """Calls it, and says what came of it."""
    try:
        if name == "send":
            return "%d bytes" % reader.send(REPLY)
        if name == "recv":
            size = len(reader.recv(1 << 20))
            return "0: end of stream" if size == 0 else "%d bytes" % size
        if name == "recv all":
            size = 0
            while True:
                chunk = reader.recv(1 << 20)
                if not chunk:
                    return "%d bytes, then 0: end of stream" % size
                size += len(chunk)
        if name == "getpeername":
            reader.getpeername()
        if name == "shutdown":
            reader.shutdown(socket.SHUT_WR)
        return "ok"
    except OSError as e:
        return "%s %d" % (errno.errorcode.get(e.errno, "error"), e.errno)


def run(packets, server_does, calls, unread, full):
    """The server sends, the reader reads 10 bytes and replies; the server closes, and the reader calls."""
    listener = socket.create_server(("127.0.0.1", 0))
    reader = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    listener.close()
    with reader, server:
        ports = reader.getsockname()[1], server.getsockname()[1]
        reader.settimeout(DEADLINE)
        packets.read(*ports)
        server.sendall(MESSAGE * 10)
        reader.recv(10)
        if full:
            server.setblocking(False)
            try:
                while True:
                    server.send(MESSAGE * 5000)
            except BlockingIOError:
                pass
        reader.send(REPLY)
        wait(server, select.POLLIN, "the reply")
        if not unread:
            server.recv(100)
        if not full:
            packets.read(*ports)
        before = packets.read(*ports)
        server.close()
        # Until the reader's kernel knows: it has a FIN or an RST. With a full window a FIN cannot arrive.
        if unread or not full:
            wait(reader, select.POLLRDHUP, "the end of the connection")
        outcomes = []
        for name in calls:
            outcomes.append((name, call(reader, name)))
            if name == "send" and not unread:
                # The answer to it.
                wait(reader, select.POLLHUP | select.POLLERR, "the reset")
        after = packets.read(*ports)
    case = {"server": server_does, "calls": outcomes}
    if after is not None:
        # Of a full buffer the segments are many: only the end is of interest.
        last = [each for each in before if "window 0" in each][-1:] if full else []
        case["segments"] = last + (after[:3] if full else after)
    return case


CASES = [
    ("closes; replies are unread", ["recv", "recv", "recv", "send"], True, False),
    ("closes; replies are unread", ["send", "send", "recv", "recv"], True, False),
    ("closes; replies are unread", ["getpeername", "shutdown"], True, False),
    ("closes; it has read all replies", ["recv", "recv", "send", "send", "recv"], False, False),
    ("closes with a full send buffer; replies are unread", ["recv all"], True, True),
    ("closes with a full send buffer; it has read all replies", ["recv all"], False, True),
]


def main():
    packets = Packets()
    cases = [run(packets, *case) for case in CASES]
    json.dump({"cases": cases}, sys.stdout)
    print()


main()
