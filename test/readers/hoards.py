"""Readers for reader_work_test.ts: python3 hoards.py HOST PORT KIND MICROSECONDS

    thread   takes all there is into a queue; a thread works on it
    child    as thread, but the worker is a process of its own, two forks away
    asyncio  takes all there is into a deque; a task of the same thread works on it
    busy     as thread, but its work is computing, not sleeping
    holds    works on what it read before it reads more
    timer    as thread, and wakes up 100 times a second beside it

A message is one byte. Each time that there is nothing left to do, it says so: "idle" and the time,
in ms since 1970.
"""
import asyncio
import collections
import os
import queue
import socket
import sys
import threading
import time

HOST, PORT, KIND, SECONDS = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4]) / 1e6


def say_idle():
    os.write(2, f"idle {time.time() * 1000:.3f}\n".encode())


class Pace:
    """Oversleeping is made up for, so that its rate is 1 / SECONDS whatever the machine does."""

    due = 0.0

    def debt(self):
        now = time.monotonic()
        self.due = max(self.due, now - 0.02) + SECONDS
        return max(0, self.due - now)

    def work(self):
        ahead = self.debt()
        if KIND == "busy":
            end = time.thread_time() + SECONDS
            while time.thread_time() < end:
                pass
        elif ahead > 0.001:
            time.sleep(ahead)


def work_on(take):
    pace = Pace()
    while True:
        try:
            count = take(False)
        except queue.Empty:
            say_idle()
            count = take(True)
        for _ in range(count):
            pace.work()


def read_into(put):
    while data := feed.recv(65536):
        put(len(data))


feed = socket.create_connection((HOST, PORT))
if KIND == "asyncio":
    async def main():
        waiting = collections.deque()
        more = asyncio.Event()

        class Feed(asyncio.Protocol):
            def data_received(self, data):
                waiting.extend(data)
                more.set()

            def connection_lost(self, error):
                os._exit(0)

        await asyncio.get_running_loop().create_connection(Feed, sock=feed)
        pace = Pace()
        while True:
            while waiting:
                waiting.popleft()
                ahead = pace.debt()
                if ahead > 0.001:
                    await asyncio.sleep(ahead)
            say_idle()
            more.clear()
            await more.wait()

    asyncio.run(main())
elif KIND == "holds":
    pace = Pace()
    say_idle()
    while data := feed.recv(64):
        for _ in data:
            pace.work()
        say_idle()
elif KIND == "child":
    taking, giving = os.pipe()

    def take(wait):
        os.set_blocking(taking, wait)
        try:
            data = os.read(taking, 1)
        except BlockingIOError:
            raise queue.Empty
        if not data:
            os._exit(0)
        return 1

    if os.fork() == 0:
        os.close(giving)
        # The parent of the worker ends at once.
        if os.fork() == 0:
            feed.close()
            work_on(take)
        os._exit(0)
    os.wait()
    read_into(lambda count: os.write(giving, b"." * count))
else:
    if KIND == "timer":
        def tick():
            while True:
                time.sleep(0.01)

        threading.Thread(target=tick, daemon=True).start()
    waiting = queue.Queue()
    threading.Thread(target=work_on, args=(lambda wait: waiting.get(wait),), daemon=True).start()
    read_into(waiting.put)
