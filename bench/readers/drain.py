"""The article's fix: reads until EAGAIN, then processes what it has read. It does not reply.

    python3 drain.py HOST PORT

Python 2 runs it, too: as the article's author did.
"""
from __future__ import print_function

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
                except socket.error as e:
                    if e.errno == errno.EAGAIN:  # nothing more to read
                        break
                    raise
                if not chunk:
                    eof = True
                    break
                data += chunk
            total += len(data)  # process the data
    except socket.error as e:
        name = errno.errorcode.get(e.errno, "error")
        print("drain.py: %s %d after %d bytes" % (name, e.errno, total), file=sys.stderr)
        sys.exit(1)
    print("drain.py: EOF after %d bytes" % total, file=sys.stderr)


main()
