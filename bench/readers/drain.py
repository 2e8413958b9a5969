"""The article's fix: reads until EAGAIN, then processes what it has read. It does not reply.

    python3 drain.py HOST PORT
"""
import errno
import select
import socket
import sys


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    s = socket.create_connection((host, port))
    s.setblocking(False)
    total = 0
    eof = False
    try:
        while not eof:
            select.select([s], [], [])
            data = b""
            while True:
                try:
                    chunk = s.recv(1024)
                except BlockingIOError:  # EAGAIN: nothing more to read
                    break
                if not chunk:
                    eof = True
                    break
                data += chunk
            total += len(data)  # process the data
    except OSError as e:
        name = errno.errorcode.get(e.errno, "error")
        print(f"drain.py: {name} {e.errno} after {total} bytes", file=sys.stderr)
        sys.exit(1)
    print(f"drain.py: EOF after {total} bytes", file=sys.stderr)


main()
