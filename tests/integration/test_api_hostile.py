"""Clients of the API that are slow, greedy or deaf: they cost themselves, nobody else.

While they do it an ordinary `duplex status` is answered, and SIGTERM ends the daemon.
"""
import contextlib
import select
import signal
import socket
import subprocess
import threading
import time

from duplex import MIB, Array
from marks import slow

HOSTILE = 64
MAX_CONNECTIONS = 128    # docs/LIMITS.md
REQUEST_S = 10           # for head and body
STATUS_LIMIT_S = 5
STOP_LIMIT_S = 8
POST = (b"POST /api/v1/volumes HTTP/1.1\r\nHost: duplex\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n")
FOLLOW = (b"GET /api/v1/events HTTP/1.1\r\nHost: duplex\r\nAccept: text/event-stream\r\n"
          b"Last-Event-ID: 1\r\n\r\n")
SUPPORT = b"GET /api/v1/support HTTP/1.1\r\nHost: duplex\r\n\r\n"


def connection(array):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(30)
    client.connect(array.api)
    return client


class Trickle:
    """Connections that send `first` and then, each of them, a byte of `rest` per second."""

    def __init__(self, array, number, first, rest):
        self.clients = [connection(array) for _ in range(number)]
        self.rest, self.gone, self.ending = rest, 0, threading.Event()
        for client in self.clients:
            client.sendall(first)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        for at in range(len(self.rest)):
            gone = 0
            for client in self.clients:
                try:
                    client.send(self.rest[at:at + 1])
                except OSError:
                    gone += 1
            self.gone = gone
            if self.ending.wait(1):
                return

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ending.set()
        self.thread.join()
        for client in self.clients:
            client.close()


def answer_of(client):
    """Everything up to the end of the connection."""
    text = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65536):
            text += piece
    return text


def asked(array, request):
    """What a client gets that does all right."""
    client = connection(array)
    client.sendall(request)
    with contextlib.closing(client):
        return answer_of(client)


def quick_status(array, when):
    start = time.monotonic()
    array.do("status", limit=STATUS_LIMIT_S)
    took = time.monotonic() - start
    assert took < STATUS_LIMIT_S, f"{when}: status took {took:.1f} s"


def quick_stop(array):
    """SIGTERM ends it well and in time."""
    start = time.monotonic()
    array.process.send_signal(signal.SIGTERM)
    try:
        code = array.process.wait(timeout=STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"SIGTERM has not ended it after {STOP_LIMIT_S} s") from None
    assert code == 0, f"it ended with {code} after {time.monotonic() - start:.1f} s"
    array.process.stdout.close()
    array.process = None
    array.check_log()


def until(holds, what, limit):
    end = time.monotonic() + limit
    while not holds():
        assert time.monotonic() < end, f"not within {limit} s: {what}"
        time.sleep(0.1)


def refused(answer, status):
    """One of our errors, with a cause and a next step."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:500]
    assert b'"next":"' in body and b'"message":"' in body, answer[:500]


def trickled(build, first, rest):
    """Many trickling connections: the array answers, gives them up in time, and ends."""
    with Array(build) as array:
        array.start()
        with Trickle(array, HOSTILE, first, rest) as many:
            start = time.monotonic()
            for moment in (0, 3, 6):
                time.sleep(max(0.0, start + moment - time.monotonic()))
                quick_status(array, f"{moment} s after they began")
            until(lambda: many.gone == HOSTILE, "every trickling client is given up",
                  REQUEST_S + 5)
            assert time.monotonic() - start > REQUEST_S - 2, "they were given up too early"
            refused(answer_of(many.clients[0]), 408)
            quick_status(array, "afterwards")
        with Trickle(array, HOSTILE, first, rest):
            quick_status(array, "the second time")
            quick_stop(array)


@slow
def test_clients_that_trickle_their_headers_are_given_up_and_hinder_nobody(build):
    trickled(build, b"GET /api/v1/status HTTP/1.1\r\nHost: duplex\r\n", b"X-Slow: " + b"x" * 1000)


@slow
def test_clients_that_trickle_their_body_are_given_up_and_hinder_nobody(build):
    trickled(build, POST % 1000, b" " * 1000)


def test_a_huge_header_is_refused(build):
    """Neither one line nor many lines without end are kept in memory."""
    with Array(build) as array:
        array.start()
        for lines in (b"X-Huge: " + b"h" * MIB + b"\r\n", b"a: b\r\n" * 100_000):
            client = connection(array)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(b"GET /api/v1/status HTTP/1.1\r\nHost: duplex\r\n" + lines + b"\r\n")
            answer = answer_of(client)
            client.close()
            assert answer[9:12] in (b"400", b"431"), answer[:200]
            quick_status(array, "after a huge header")
        endless = [connection(array) for _ in range(8)]
        for client in endless:
            client.setblocking(False)
        end = time.monotonic() + 3
        while endless and time.monotonic() < end:
            for client in select.select([], endless, [], 0.1)[1]:
                try:
                    client.send(b"a: b\r\n" * 1000)
                except OSError:
                    endless.remove(client)
                    client.close()
        assert not endless, "whoever sends header lines without end is cut off"
        quick_status(array, "after endless headers")
        quick_stop(array)


def test_a_huge_content_length_is_refused_and_holds_nothing(build):
    with Array(build) as array:
        array.start()
        for length in (2 * MIB, 1 << 40, (1 << 64) - 1, 1 << 70):
            client = connection(array)
            client.sendall(POST % length)
            client.shutdown(socket.SHUT_WR)
            refused(answer_of(client), 413)
            client.close()
        waiting = [connection(array) for _ in range(HOSTILE)]
        for client in waiting:
            client.sendall(POST % (1 << 40) + b" " * 1000)
        quick_status(array, "while huge bodies are promised")
        quick_stop(array)
        for client in waiting:
            client.close()


def test_more_connections_than_the_api_has_are_told_so(build):
    """They read a clear 503, also those that send their request only then."""
    with Array(build) as array:
        array.start()
        held = [connection(array) for _ in range(MAX_CONNECTIONS)]
        time.sleep(0.5)
        one_more = connection(array)
        time.sleep(0.2)
        one_more.sendall(b"GET /api/v1/status HTTP/1.1\r\nHost: duplex\r\n\r\n")
        refused(answer_of(one_more), 503)
        one_more.close()
        error = array.refused("status")
        assert error["code"] == "e_busy" and "too many connections" in error["message"], error
        for client in held:
            client.close()
        until(lambda: array.run("status").code == 0, "their places are free again", 5)
        quick_stop(array)


def test_a_client_that_never_reads_its_events_hinders_nobody(build):
    with Array(build) as array:
        array.with_volume()
        deaf = [connection(array) for _ in range(HOSTILE)]
        for client in deaf:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            client.sendall(FOLLOW)
        time.sleep(0.5)
        for number in range(600):  # more than a socket holds unread
            body = b'{"name":"v%d","size":"1M"}' % number
            assert asked(array, POST % len(body) + body).startswith(b"HTTP/1.1 200 ")
        assert len(asked(array, SUPPORT)) > MIB // 4
        quick_status(array, "while nobody reads the events")
        pages = [connection(array) for _ in range(HOSTILE)]
        for client in pages:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            client.sendall(SUPPORT)
        time.sleep(0.5)
        quick_status(array, "while nobody reads large answers")
        quick_stop(array)
        for client in deaf + pages:
            client.close()
