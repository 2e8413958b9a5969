"""The article's fix with one word changed: it gathers in a bytearray, which grows in place.

    python3 drain_bytearray.py HOST PORT
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
            data = bytearray()
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
        print(f"drain_bytearray.py: {name} {e.errno} after {total} bytes", file=sys.stderr)
        sys.exit(1)
    print(f"drain_bytearray.py: EOF after {total} bytes", file=sys.stderr)


main()
