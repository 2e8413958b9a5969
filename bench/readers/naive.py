"""The article's first reader: reads 10 bytes, replies, reads the next 10.

    python3 naive.py HOST PORT
"""
import errno
import socket
import sys


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    s = socket.create_connection((host, port))
    total = 0
    try:
        while True:
            data = s.recv(10)
            if not data:
                break
            total += len(data)
            s.sendall(b"Hi i got the data")
    except OSError as e:
        name = errno.errorcode.get(e.errno, "error")
        print(f"naive.py: {name} {e.errno} after {total} bytes", file=sys.stderr)
        sys.exit(1)
    print(f"naive.py: EOF after {total} bytes", file=sys.stderr)


main()
