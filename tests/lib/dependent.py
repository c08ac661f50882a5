"""Writers whose writes depend on each other, and the judges of what a cut has of them.

A writer numbers its writes 1, 2, 3, ... and issues one after the one before was acknowledged (some
read what another one wrote first). `begun` and `acknowledged` are the numbers so far; a test notes
them around a split, then a judge reads the targets: what is there must be the state after the first
M writes, for one M, acknowledged-before-the-command <= M <= begun-at-its-reply.
Blocks are used again after `slots` writes a volume, so old and new writes of one place overlap.
"""
import http.client
import json
import multiprocessing
import socket
import threading
import time

from duplex import KIB, Refused, connect

BLOCK = 4 * KIB
LIMIT_S = 60
GONE_S = 5


class Wrong(Exception):
    """What a target holds is no state the volumes were in at the time of the cut."""


def image(number, seen=0):
    """A block that says its number, and what its writer had seen of its neighbour, in every part."""
    if not number:
        return bytes(BLOCK)
    return (number.to_bytes(8, "little") + seen.to_bytes(8, "little")) * (BLOCK // 16)


def numbers_in(block):
    """(number, seen) of a block; refuses one that is half of one write and half of another."""
    if block != block[:16] * (BLOCK // 16):
        raise Wrong(f"a torn block: {block[:16].hex()} and {block[-16:].hex()}")
    return int.from_bytes(block[:8], "little"), int.from_bytes(block[8:16], "little")


class Delays:
    """Times of writes: the longest, and all as (begin, end) for a look at one stretch of time."""

    def __init__(self):
        self.all = []

    def add(self, begin, end):
        self.all.append((begin, end))

    def longest(self):
        return max((end - begin for begin, end in self.all), default=0)

    def during(self, stretches):
        """Seconds of the writes that were under way in one of the stretches; and of the others."""
        inside, outside = [], []
        for begin, end in self.all:
            met = any(begin < last and end > first for first, last in stretches)
            (inside if met else outside).append(end - begin)
        return inside, outside


class Writer(threading.Thread):
    """Until stopped: one numbered write after the other. `trouble`: why it ended, if it did."""

    def __init__(self):
        super().__init__(daemon=True)
        self.begun = self.acknowledged = 0
        self.trouble = None
        self.delays = Delays()
        self._stopping = False

    def run(self):
        try:
            while not self._stopping:
                self.step()
        except Exception as error:  # pylint: disable=broad-except
            self.trouble = error

    def step(self):
        raise NotImplementedError

    def timed_write(self, handle, data, offset):
        begin = time.monotonic()
        handle.pwrite(data, offset)
        self.delays.add(begin, time.monotonic())

    def after(self, count):
        """Returns when `count` more writes are acknowledged."""
        goal, end = self.acknowledged + count, time.monotonic() + LIMIT_S
        while self.acknowledged < goal:
            if self.trouble or time.monotonic() > end:
                raise Wrong(f"writes stopped at {self.acknowledged}: {self.trouble}")
            time.sleep(0.001)

    def stop(self):
        """Ends the writer; no write of it may have failed."""
        self._stopping = True
        self.join(LIMIT_S)
        if self.trouble or self.is_alive():
            raise Wrong(f"a host write failed or hangs: {self.trouble}")


class RoundRobin(Writer):
    """Write k goes to volume k modulo their number."""

    def __init__(self, array, volumes, slots=128):
        super().__init__()
        self.handles = [connect(array, volume) for volume in volumes]
        self.slots = slots

    def place(self, number):
        return number % len(self.handles), number // len(self.handles) % self.slots

    def step(self):
        self.begun += 1
        volume, slot = self.place(self.begun)
        self.timed_write(self.handles[volume], image(self.begun), slot * BLOCK)
        self.acknowledged = self.begun

    def judge(self, contents, least, most):
        """`contents`: the first `slots` blocks of each target, in the order of the volumes."""
        there = {(volume, slot): numbers_in(content[slot * BLOCK:(slot + 1) * BLOCK])[0]
                 for volume, content in enumerate(contents) for slot in range(self.slots)}
        last = max(there.values())
        check_range(last, least, most)
        wanted = dict.fromkeys(there, 0)
        for number in range(max(1, last - len(there) + 1), last + 1):
            wanted[self.place(number)] = number
        wrong = [(place, number, there[place]) for place, number in wanted.items()
                 if there[place] != number]
        if wrong:
            (volume, slot), number, found = wrong[0]
            raise Wrong(f"no prefix: number {last} is there, {number} of volume {volume} is not; "
                        f"block {slot} has {found} ({len(wrong)} such)")
        return last


def check_range(last, least, most):
    if last < least:
        raise Wrong(f"write {least} was acknowledged before the command and is not there, "
                    f"the last one there is {last}")
    if last > most:
        raise Wrong(f"write {last} is there and was begun after the reply (at {most})")


class Neighbour(Writer):
    """Writes to a volume of its own; before each write it reads what the one before it in a ring
    is writing, acknowledged or not, and puts into its block the highest number it has seen there."""

    def __init__(self, array, volume, slots=64):
        super().__init__()
        self.handle, self.slots = connect(array, volume), slots
        self.seen = [0]   # of each number of mine
        self.before, self.view = None, None

    def follow(self, array, volume, before):
        self.view, self.before = connect(array, volume), before

    def step(self):
        slot = self.before.begun % self.slots
        number, _ = numbers_in(self.view.pread(BLOCK, slot * BLOCK))
        self.seen.append(max(self.seen[-1], number))
        self.begun += 1
        self.timed_write(self.handle, image(self.begun, self.seen[-1]),
                         self.begun % self.slots * BLOCK)
        self.acknowledged = self.begun

    def judge(self, content, least, most):
        """A prefix of this writer; (its length, what its last write had seen of the neighbour)."""
        there = [numbers_in(content[slot * BLOCK:(slot + 1) * BLOCK]) for slot in range(self.slots)]
        last = max(there)[0]
        check_range(last, least, most)
        wanted = [(0, 0)] * self.slots
        for number in range(max(1, last - self.slots + 1), last + 1):
            wanted[number % self.slots] = (number, self.seen[number])
        if there != wanted:
            raise Wrong(f"no prefix of one writer: {last} is there, "
                        f"{[pair for pair in zip(wanted, there) if pair[0] != pair[1]][:3]}")
        return last, self.seen[last]


class Hog:
    """A host that keeps one reactor busy, so that the reactors of a cut hear of it far apart."""

    BYTES, DEPTH = 1 << 20, 8

    def __init__(self, array, volume):
        self._process = multiprocessing.get_context("fork").Process(
            target=self._run, args=(array, volume), daemon=True)

    def __enter__(self):
        self._process.start()
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.join()

    @classmethod
    def _run(cls, array, volume):
        import nbd  # pylint: disable=import-outside-toplevel
        handle, buffer = connect(array, volume), nbd.Buffer.from_bytearray(bytearray(cls.BYTES))
        while True:
            while handle.aio_in_flight() < cls.DEPTH:
                handle.aio_pwrite(buffer, 0)
            handle.poll(-1)
            while (cookie := handle.aio_peek_command_completed()) > 0:
                handle.aio_command_completed(cookie)


class Api:
    """The API without the program `duplex`: a reply is seen the moment it comes."""

    class _Connection(http.client.HTTPConnection):
        def __init__(self, path):
            super().__init__("localhost", timeout=LIMIT_S)
            self._path = path

        def connect(self):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)

    def __init__(self, array):
        self._path = array.api

    def get(self, path):
        return self._ask("GET", path, None)[1]

    def post(self, path, body):
        """(status, what it answered)."""
        return self._ask("POST", path, json.dumps(body))

    def _ask(self, method, path, body):
        connection = self._Connection(self._path)
        try:
            connection.request(method, "/api/v1/" + path, body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read())
        finally:
            connection.close()

    def split(self, *names, **more):
        """The cut; writers are asked for `begun` right after this."""
        status, answer = self.post("splits", {"names": list(names), **more})
        if status != 200:
            raise Refused(f"split {names}: {status} {answer}")
        return answer

    def resync(self, *names):
        """Returns when all of them are in SYNC."""
        end = time.monotonic() + LIMIT_S
        while True:
            status, answer = self.post("resyncs", {"names": list(names)})
            if status in (200, 202):
                break
            # A reader of the targets that has just gone may still be counted for a moment.
            if answer["error"]["code"] != "e_busy" or time.monotonic() > end - LIMIT_S + GONE_S:
                raise Refused(f"resync {names}: {status} {answer}")
            time.sleep(0.002)
        for name in names:
            while self.get("mirrors/" + name)["state"] != "SYNC":
                if time.monotonic() > end:
                    raise Refused(f"{name} does not come back: {self.get('mirrors/' + name)}")
                time.sleep(0.002)
