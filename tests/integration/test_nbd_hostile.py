"""Clients that are broken, slow, gone or hostile: they cost themselves, nobody else.

Each rule here was paid for by another server of this protocol; where one has a CVE number it is
named.
"""
import contextlib
import itertools
import os
import random
import resource
import signal
import socket
import struct
import subprocess
import sys
import time

import rawnbd as nbd_raw
from duplex import GIB, KIB, MIB, Array, Skip, connect
from marks import every_engine, slow
from rawnbd import (ABORT, ACK, BLOCK_STATUS, CACHE, DISC, EINVAL, ENOSPC, ERR_INVALID, ERR_TOO_BIG,
                    ERR_UNKNOWN, EXPORT_NAME, FLUSH, GO, INFO, LIST, LIST_META_CONTEXT, READ,
                    SET_META_CONTEXT, STARTTLS, STRUCTURED_REPLY, TRIM, WRITE, WRITE_ZEROES, Gone,
                    Raw, go_payload, meta_payload, ready, request_bytes, until)

SIZE = 64 * MIB
DEADLINE_S = 10          # of a handshake
MAX_CONNECTIONS = 1024   # docs/LIMITS.md
MAX_PER_ADDRESS = 256
MAX_HANDSHAKES = 128
MAX_OPTIONS = 64
MAX_PAYLOAD = 64 * KIB
BUDGET = 40 * MIB        # requests in flight of one connection


def expect(got, wanted, what=""):
    if got != wanted:
        raise AssertionError(f"{what}: got {str(got)[:500]}, wanted {str(wanted)[:500]}")


@contextlib.contextmanager
def served(build, size="64M", **how):
    """An array with a volume. Whatever the test did to it: an ordinary client works, nobody is
    left in the list of clients, no descriptor is lost, it stops cleanly and the log is clean."""
    with Array(build, **how) as array:
        array.with_volume("vol", size)
        ordinary(array)
        until(lambda: not clients(array), "the first client is gone")
        before = descriptors(array)
        yield array
        ordinary(array)
        until(lambda: not clients(array), "every client is gone from the list")
        until(lambda: descriptors(array) <= before, "every descriptor is closed")
        array.stop()
        array.check_log()


def ordinary(array, limit=60):
    """What a normal client does; seconds it took."""
    start = time.monotonic()
    handle = connect(array)
    data = os.urandom(9000)
    handle.pwrite(data, 4095)
    handle.flush()
    expect(bytes(handle.pread(len(data), 4095)) == data, True, "an ordinary client")
    handle.shutdown()
    took = time.monotonic() - start
    assert took < limit, f"an ordinary client took {took:.1f} s"
    return took


def clients(array, volume="vol"):
    return array.do("volume", "show", volume)["clients"]


def descriptors(array):
    return len(os.listdir(f"/proc/{array.process.pid}/fd"))


def memory(array):
    """Bytes resident."""
    with open(f"/proc/{array.process.pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * KIB for line in file if line.startswith("VmRSS"))


def memory_stays_below(array, limit, before, when):
    """`limit`: bytes that may come on top of `before`; a sanitizer needs several times as many."""
    with open(array.build.duplexd, "rb") as file:
        text = file.read()
    if b"__asan_init" in text or b"__tsan_init" in text:
        limit = 4 * limit + GIB
    grown = memory(array) - before
    assert grown < limit, f"{when}: {grown // MIB} MiB more, at most {limit // MIB} were expected"


def killed_client(array, requests):
    """A client in a process of its own, which sends `requests` after the handshake and hangs."""
    code = ("import sys, time\n"
            "import rawnbd\n"
            "class Where: nbd = sys.argv[1]\n"
            "raw = rawnbd.ready(Where)\n"
            "raw.socket.settimeout(None)\n"
            "print('ready', flush=True)\n"
            "raw.send(sys.stdin.buffer.read())\n"
            "time.sleep(3600)\n")
    process = subprocess.Popen([sys.executable, "-c", code, array.nbd], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                               env={**os.environ, "PYTHONPATH": os.path.dirname(nbd_raw.__file__),
                                    "PYTHONDONTWRITEBYTECODE": "1"})
    try:
        expect(process.stdout.readline(), b"ready\n", "the client that will be killed")
        process.stdin.write(requests)
        process.stdin.close()
    except BaseException:
        process.kill()
        raise
    return process


# Handshake.

def stalls(array):
    """Connections that stand still, one for each place where that is possible."""
    go = go_payload("vol")
    option = nbd_raw.option_head(GO, len(go)) + go
    flags = struct.pack(">I", 3)
    for sent in (b"", flags[:1], flags, flags + option[:3], flags + option[:8], flags + option[:16],
                 flags + option[:-1],
                 flags + nbd_raw.option_head(INFO, len(go)) + go,
                 flags + nbd_raw.option_head(77, MAX_PAYLOAD) + bytes(1000)):
        raw = Raw(array)
        raw.send(sent)
        yield raw


@slow
def test_a_handshake_that_stands_still_is_closed_after_its_deadline(build):
    """CVE-2024-7409: idle clients that never negotiate. Whoever drips bytes in is no exception."""
    with served(build) as array:
        start = time.monotonic()
        standing, dripping = list(stalls(array)), Raw(array)
        dripping.greet()
        payload = nbd_raw.option_head(77, 1000) + bytes(1000)
        negotiated = ready(array)
        ordinary(array)
        with contextlib.suppress(Gone):
            for byte in payload:
                dripping.send(bytes([byte]))
                time.sleep(0.1)
                if time.monotonic() - start > 6 * DEADLINE_S:
                    break
        took = time.monotonic() - start
        assert DEADLINE_S - 1 < took < 6 * DEADLINE_S, f"dripping ended after {took:.1f} s"
        for raw in standing:
            raw.drain()
            raw.close()
        dripping.close()
        expect(negotiated.read(0, 1), b"\0", "a client that has negotiated may be idle")
        negotiated.close()


def test_an_option_longer_than_64_kib_is_refused_and_not_read(build):
    """CVE-2017-15119: an option of 4 GiB, read and thrown away."""
    with served(build) as array:
        before = memory(array)
        for option in (LIST, INFO, GO, STRUCTURED_REPLY, LIST_META_CONTEXT, SET_META_CONTEXT, ABORT,
                       STARTTLS, 77):
            for length in (MAX_PAYLOAD + 1, 1 << 31, 0xFFFF_FFFF):
                with Raw(array) as raw:
                    raw.greet()
                    raw.option(option, b"", length)
                    expect(raw.option_reply(option)[0], ERR_TOO_BIG)
                    assert raw.gone()
        for length in (4097, MAX_PAYLOAD, MAX_PAYLOAD + 1, 0xFFFF_FFFF):
            with Raw(array) as raw:
                raw.greet()
                with contextlib.suppress(Gone):
                    raw.option(EXPORT_NAME, b"x" * min(length, MAX_PAYLOAD), length)
                assert raw.gone()
        # What the client sends along is not drained.
        with Raw(array) as raw:
            raw.greet()
            raw.option(77, b"", 0xFFFF_FFFF)
            try:
                for _ in range(64):
                    raw.send(bytes(MIB))
                raise AssertionError("64 MiB of a refused option were read")
            except Gone:
                pass
        memory_stays_below(array, 8 * MIB, before, "after options of up to 4 GiB")


def test_names_of_every_boundary_length_are_looked_up_or_refused(build):
    """CVE-2017-15118: a name longer than 256 bytes. CVE-2020-10761: its error message."""
    with served(build) as array:
        raw = Raw(array)
        for length in (1, 63, 64, 65, 255, 256, 257, 999, 1000, 1001, 4070, 4095, 4096, 4097, 8192,
                       MAX_PAYLOAD - 6):
            raw = again(array, raw)
            for byte in (b"n", b"\0", b"\xff"):
                wanted = ERR_UNKNOWN if length <= 4096 else ERR_INVALID
                for option in (INFO, GO):
                    kind, text = raw.ask(option, go_payload(byte * length))[-1]
                    expect(kind, wanted, (option, length))
                    assert 0 < len(text) < 4096, len(text)
                for option in (LIST_META_CONTEXT, SET_META_CONTEXT):
                    payload = meta_payload(byte * length, [b"base:"])
                    if len(payload) <= MAX_PAYLOAD:
                        expect(raw.verdict(option, payload), wanted, (option, length))
        raw.close()


def again(array, raw):
    """A new connection at the same place: a handshake has a bounded number of options."""
    raw.close()
    fresh = Raw(array)
    fresh.greet()
    fresh.ask(STRUCTURED_REPLY)
    return fresh


LENGTHS = (0, 1, 2, 3, 4, 5, 127, 128, 4095, 4096, 4097, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000,
           0xFFFF_FFF0, 0xFFFF_FFFF)


def test_lengths_inside_an_option_must_fit_the_length_around_them(build):
    """CVE-2022-26495 and -26496: a name of 0xffffffff bytes, and inner lengths that disagree."""
    payloads = [(option, payload) for option in (INFO, GO) for payload in
                [b"", b"\0", bytes(3), bytes(4), bytes(5), b"\0\0\0\3vol", b"\0\0\0\3vol\0",
                 go_payload("vol") + b"x", go_payload("vol", (1, 3))[:-1],
                 go_payload("vol") + b"\0\0"]]
    for length in LENGTHS:
        word = struct.pack(">I", length)
        if length != 3:
            payloads += [(option, word + b"vol\0\0") for option in (INFO, GO)]
            payloads += [(option, word + b"vol" + struct.pack(">I", 0))
                         for option in (LIST_META_CONTEXT, SET_META_CONTEXT)]
        if length != 1:
            one = struct.pack(">I", 3) + b"vol" + word + struct.pack(">I", 4) + b"base"
            payloads += [(option, one) for option in (LIST_META_CONTEXT, SET_META_CONTEXT)]
        if length != 4:
            one = struct.pack(">I", 3) + b"vol" + struct.pack(">II", 1, length) + b"base"
            payloads += [(option, one) for option in (LIST_META_CONTEXT, SET_META_CONTEXT)]
        if 0 < length <= 0xFFFF:
            payloads += [(option, b"\0\0\0\3vol" + struct.pack(">H", length))
                         for option in (INFO, GO)]
    for payload in (b"", b"\0\0\0\3vol", b"\0\0\0\3vol\0\0\0", meta_payload("vol") + b"x",
                    meta_payload("vol", [b"base:"])[:-1]):
        payloads += [(option, payload) for option in (LIST_META_CONTEXT, SET_META_CONTEXT)]
    with served(build) as array:
        before = memory(array)
        raw = again(array, Raw(array))
        for i, (option, payload) in enumerate(payloads):
            expect(raw.verdict(option, payload), ERR_INVALID, (option, payload))
            if i % 50 == 49:
                raw.go()
                expect(raw.read(0, 1), b"\0")
                raw = again(array, raw)
        raw.close()
        memory_stays_below(array, 8 * MIB, before, "after lengths of up to 4 GiB")


def test_the_number_of_options_is_bounded(build):
    with served(build) as array, Raw(array) as raw:
        raw.greet()
        for _ in range(MAX_OPTIONS):
            expect(raw.verdict(LIST), ACK)
        with contextlib.suppress(Gone):
            raw.option(LIST)
        assert raw.gone()


def test_every_order_of_two_options_leaves_a_defined_state(build):
    """CVE-2019-14851: an assertion on the order of commands."""
    options = {LIST: b"", INFO: go_payload("vol"), STRUCTURED_REPLY: b"", STARTTLS: b"", 77: b"",
               LIST_META_CONTEXT: meta_payload("vol"), GO: go_payload("nobody"),
               SET_META_CONTEXT: meta_payload("vol", [b"base:allocation"])}
    with served(build) as array:
        for first, second in itertools.product(options, repeat=2):
            with Raw(array) as raw:
                raw.greet()
                verdicts = [raw.verdict(o, options[o]) for o in (first, second)]
                selected = (first, second) == (STRUCTURED_REPLY, SET_META_CONTEXT)
                for option, verdict in zip((first, second), verdicts):
                    taken = option in (LIST, INFO, LIST_META_CONTEXT, STRUCTURED_REPLY)
                    taken = taken or (option == SET_META_CONTEXT and selected)
                    expect(verdict == ACK, taken, (first, second, verdicts))
                raw.go()
                expect(raw.read(0, 1), b"\0")
                expect(raw.error_of(BLOCK_STATUS, 0, 4096), 0 if selected else EINVAL,
                       (first, second))


def test_wrong_magics_end_the_connection(build):
    with served(build) as array:
        good = nbd_raw.OPTION_MAGIC
        for magic in (bytes(8), b"\xff" * 8, b"NBDMAGIC", good[::-1], good[:-1] + b"\0",
                      request_bytes(READ)[:8], b"GET / HT"):
            with Raw(array) as raw:
                raw.greet()
                raw.send(magic + struct.pack(">II", LIST, 0))
                assert raw.gone(), magic
        for magic in (0, 0xFFFF_FFFF, nbd_raw.SIMPLE_MAGIC, nbd_raw.REQUEST_MAGIC + 1, 0x49484156):
            with ready(array) as raw:
                raw.write(0, b"a")
                raw.send(request_bytes(READ, 1, 0, 1, 0, magic))
                assert raw.gone(), magic
        # An option where requests are due, requests where options are due.
        with ready(array) as raw:
            raw.option(LIST, bytes(64))
            assert raw.gone()
        with Raw(array) as raw:
            raw.greet()
            raw.send(request_bytes(WRITE, 1, 0, 4) + b"evil")
            assert raw.gone()
        with ready(array) as raw:
            expect(raw.read(0, 4), b"a\0\0\0", "a request before GO was served")


def test_noise_ends_the_connection_and_nothing_else(build):
    with served(build) as array:
        with ready(array) as judge:
            judge.write(0, b"untouched")
            dice = random.Random(1)
            for turn in range(120):
                with contextlib.suppress(Gone), Raw(array) as raw:
                    if turn % 3 == 0:
                        raw.send(dice.randbytes(dice.randrange(1, 5000)))
                        continue
                    raw.greet()
                    if turn % 3 == 1:
                        raw.option(dice.randrange(1, 12), dice.randbytes(dice.randrange(200)),
                                   dice.choice([None, dice.randrange(1 << 17)]))
                    else:
                        raw.send(nbd_raw.OPTION_MAGIC + dice.randbytes(dice.randrange(3000)))
            for turn in range(120):
                with contextlib.suppress(Gone), ready(array, allocation=True) as raw:
                    # Commands that write nothing into the bytes that are checked.
                    raw.send(request_bytes(dice.choice([READ, FLUSH, CACHE, BLOCK_STATUS, 9]),
                                           dice.randrange(1 << 64), dice.randrange(1 << 64),
                                           dice.randrange(1 << 32), dice.randrange(1 << 16))
                             + dice.randbytes(dice.randrange(200)))
            expect(judge.read(0, 9), b"untouched")


def test_a_connection_may_end_at_any_byte_of_the_handshake(build):
    """CVE-2017-9524 and CVE-2013-7441: negotiation that ends early."""
    go = go_payload("vol", (1, 2, 3))
    meta = meta_payload("vol", [b"base:allocation"])
    talk = struct.pack(">I", 3)
    for option, payload in ((STRUCTURED_REPLY, b""), (SET_META_CONTEXT, meta), (LIST, b""),
                            (GO, go)):
        talk += nbd_raw.option_head(option, len(payload)) + payload
    talk += request_bytes(WRITE, 1, 0, 8) + b"half don"
    with served(build) as array:
        for count in range(len(talk)):
            with Raw(array) as raw:
                raw.send(talk[:count])
                if count % 2:
                    raw.socket.shutdown(socket.SHUT_WR)
                    raw.drain()
        with ready(array) as raw:
            expect(raw.read(0, 8), bytes(8), "a write without its whole payload was done")


def test_nothing_is_opened_before_go(build):
    """CVE-2019-14850: an export opened for every connection. A half-open one holds no volume."""
    with served(build) as array:
        array.do("volume", "create", "doomed", "--size", "8M")
        with Raw(array) as raw, Raw(array) as other:
            for one in (raw, other):
                one.greet()
                one.ask(STRUCTURED_REPLY)
                one.ask(SET_META_CONTEXT, meta_payload("doomed", [b"base:allocation"]))
                one.go("doomed", option=INFO)
            payload = go_payload("doomed")
            other.option(GO, payload[:-1], len(payload))  # all but one byte
            expect(clients(array, "doomed"), [])
            array.run("volume", "delete", "doomed", "--yes", check=0)
            expect(raw.verdict(GO, payload), ERR_UNKNOWN)
            other.send(payload[-1:])
            expect(other.option_reply(GO)[0], ERR_UNKNOWN)
            raw.go("vol")
            expect(raw.error_of(BLOCK_STATUS, 0, 4096), EINVAL, "context of another volume")


# Caps.

def test_handshakes_at_a_time_are_capped_and_end_for_others(build):
    """CVE-2024-7409: the cap turns newcomers away at once; who has negotiated goes on."""
    with served(build) as array:
        with ready(array) as friend:
            idle = []
            for _ in range(MAX_HANDSHAKES):
                idle.append(Raw(array))
                idle[-1].greet()
            for _ in range(5):
                with Raw(array) as turned_away:
                    assert turned_away.gone()
            friend.write(0, b"goes on")
            expect(friend.read(0, 7), b"goes on")
            expect(len(clients(array)), 1, "half-open connections are no clients")
            idle.pop().close()
            until(lambda: served_again(array), "a place is free again")
            for raw in idle:
                raw.close()
        assert "turned away" in array.log_text()


def served_again(array):
    try:
        with ready(array) as raw:
            return raw.read(0, 1) is not None
    except Gone:
        return False


def tcp(port, source):
    """A connection from an address of its own, in the transmission phase; raises Gone."""
    stream = socket.create_connection(("127.0.0.1", port), nbd_raw.LIMIT_S, (source, 0))
    try:
        return ready(None, stream=stream)
    except Gone:
        stream.close()
        raise


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def turned_away(port, source):
    try:
        tcp(port, source).close()
        return False
    except Gone:
        return True


def test_connections_are_capped_per_address_and_in_all(build):
    wanted = MAX_CONNECTIONS + 200
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < wanted:
        raise Skip(f"{wanted} descriptors are needed, {most} allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limit, wanted), most))
    port = free_port()
    with served(build, extra=("--nbd", f"tcp:127.0.0.1:{port}")) as array:
        before, held = memory(array), {}
        for address in range(2, 6):
            source = f"127.0.0.{address}"
            # Addresses before this one are full; this one is served all the same.
            held[source] = [tcp(port, source) for _ in range(MAX_PER_ADDRESS - (address == 5))]
            if address < 5:
                assert turned_away(port, source), "more than an address may have"
        friend = ready(array)  # the last place
        expect(len(clients(array)), MAX_CONNECTIONS)
        assert turned_away(port, "127.0.0.9"), "more than the array may have"
        for raws in held.values():
            expect(raws[17].read(0, 1), b"\0")
        memory_stays_below(array, 128 * MIB, before, "with 1024 idle clients")
        held["127.0.0.2"].pop().close()
        until(lambda: not turned_away(port, "127.0.0.9"), "a place is free again")
        friend.close()
        for raws in held.values():
            for raw in raws:
                raw.close()
        until(lambda: not clients(array), "all of them are gone")


# Requests.

def test_huge_ranges_are_answered_in_bounded_time_and_memory(build):
    """CVE-2025-47711 and -47712: BLOCK_STATUS near 2^32. The volume is as large as one can be."""
    with served(build, size="16383T") as array, ready(array, allocation=True) as raw:
        size = 16383 << 40
        before = memory(array)
        raw.write(0, b"first")
        raw.write(size - 4, b"last")
        longest = 0xFFFF_FFFF
        for offset in (0, 1, 4095, 4096, 1 << 31, (1 << 32) - 1, 1 << 32, size // 2 + 1,
                       size - longest):
            _, extents = raw.call(BLOCK_STATUS, offset, longest).extents()
            expect(sum(length for length, _ in extents), longest, offset)
            expect(raw.error_of(CACHE, offset, longest), 0)
            expect(raw.error_of(TRIM, offset + 4 * MIB, longest - 8 * MIB), 0)
            expect(raw.error_of(WRITE_ZEROES, offset + 4 * MIB, longest - 8 * MIB), 0)
        for offset in (size - longest + 1, size - 1, size, 1 << 62, (1 << 63) - longest,
                       (1 << 63) - 1, 1 << 63, (1 << 64) - longest, (1 << 64) - 1):
            for command in (BLOCK_STATUS, CACHE, TRIM, READ):
                assert raw.error_of(command, offset, longest) != 0, (command, offset)
            expect(raw.error_of(WRITE_ZEROES, offset, longest), ENOSPC)
        expect([raw.read(0, 5), raw.read(size - 4, 4)], [b"first", b"last"])
        memory_stays_below(array, 32 * MIB, before, "after requests of 4 GiB")


def test_a_write_that_claims_4_gib_costs_nothing(build):
    with served(build) as array:
        before = memory(array)
        for length in (32 * MIB + 1, 1 << 31, 0xFFFF_FFFF):
            for _ in range(20):
                with ready(array) as raw:
                    raw.request(WRITE, 0, length)
                    assert raw.gone()
        memory_stays_below(array, 32 * MIB, before, "after writes of 4 GiB")


def test_a_request_cut_short_is_not_done_and_holds_nothing_up(build):
    with served(build) as array, ready(array) as judge:
        judge.write(0, b"before" * 10)
        head = request_bytes(WRITE, 1, 0, 4 * MIB)
        for count in (1, 4, 27, 28, 29, 28 + 4096, 28 + MIB, 28 + 4 * MIB - 1):
            cut = ready(array)
            cut.send((head + b"!" * 4 * MIB)[:count])
            # The rest has not come yet: the range is free for others.
            judge.write(0, b"during" * 10)
            expect(judge.error_of(FLUSH), 0)
            cut.close()
            expect(judge.read(0, 60), b"during" * 10, count)
        until(lambda: len(clients(array)) == 1, "the others are gone")
        expect(judge.read(0, 60), b"during" * 10)


def test_a_payload_that_drips_in_is_written_when_it_is_complete(build):
    with served(build) as array, ready(array) as slow_one, ready(array) as other:
        cookie = slow_one.request(WRITE, 100, 3000, 0, b"s" * 1000)
        for i in range(20):
            other.write(90 + i, b"o" * 5000)
            expect(other.read(100, 3000), b"o" * 3000)
            slow_one.send(b"s" * 100)
        answer = slow_one.reply()
        expect((answer.cookie, answer.error), (cookie, 0))
        expect(other.read(100, 3000), b"s" * 3000)


def in_flight(count, command):
    """Bytes of `count` requests, of 32 MiB for up to 8 and of 4 MiB beyond."""
    length = 32 * MIB if count <= 8 else 4 * MIB
    if command == READ:
        return b"".join(request_bytes(READ, i, i % 2 * length, length) for i in range(count))
    # Not all of that is ever read: the budget of a connection is less.
    return b"".join(request_bytes(WRITE, i, i % 2 * length, length) + b"w" * length
                    for i in range(min(count, 12)))


@every_engine
def test_clients_that_vanish_with_requests_in_flight_leave_nothing_behind(build, **how):
    with served(build, **how) as array:
        with ready(array) as raw:
            raw.write(0, b"x" * 32 * MIB)
        before, dice = memory(array), random.Random(3)
        for turn, count in enumerate((1, 8, 64, 1, 8, 64, 1, 8, 64)):
            raw = ready(array, structured=turn % 2 == 0)
            raw.send(in_flight(count, READ))
            if turn % 3 == 1:
                raw.recv(dice.randrange(1, 2 * MIB))  # in the middle of a reply
            elif turn % 3 == 2:
                time.sleep(dice.random() / 20)
            raw.close()
        for count in (1, 8, 64):
            raw = ready(array)
            raw.socket.settimeout(0.3)
            with contextlib.suppress(TimeoutError, Gone):
                raw.send(in_flight(count, WRITE))
            raw.close()
        ordinary(array)
        until(lambda: not clients(array), "all who vanished are gone")
        memory_stays_below(array, 128 * MIB, before, "after clients that vanished")


def test_many_small_requests_in_flight_of_clients_that_vanish(build):
    with served(build) as array:
        with ready(array) as raw:
            raw.write(0, b"x" * MIB)
        dice = random.Random(4)
        for turn in range(60):
            raw = ready(array, structured=turn % 2 == 0, allocation=turn % 2 == 0)
            talk = b""
            for i in range(dice.choice([1, 8, 64, 300])):
                command = dice.choice([READ, WRITE, WRITE_ZEROES, TRIM, FLUSH, BLOCK_STATUS])
                offset, length = MIB + dice.randrange(MIB), dice.randrange(1, 20000)
                if command == FLUSH:
                    offset = length = 0
                talk += request_bytes(command, i, offset, length)
                talk += b"v" * length if command == WRITE else b""
            raw.send(talk[:dice.randrange(len(talk))] if turn % 4 == 0 else talk)
            if turn % 3 == 0:
                raw.socket.settimeout(dice.random() / 50)
                with contextlib.suppress(TimeoutError):
                    raw.recv(dice.randrange(1, 1000))
            raw.close()
        with ready(array) as raw:
            expect(raw.read(0, MIB) == b"x" * MIB, True, "beside what they wrote")


def test_a_killed_client_with_requests_in_flight_leaves_nothing_behind(build):
    with served(build) as array:
        with ready(array) as raw:
            raw.write(0, b"x" * 32 * MIB)
        before = memory(array)
        for turn, count in enumerate((1, 8, 64)):
            process = killed_client(array, in_flight(count, READ))
            until(lambda: clients(array), "the client is there")
            time.sleep(0.05 * turn)
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
            until(lambda: not clients(array), "the killed client is gone")
        memory_stays_below(array, 128 * MIB, before, "after clients that were killed")


def test_clients_that_never_read_their_replies_stall_themselves_only(build):
    """Memory is bounded by the budget of each, others are served meanwhile."""
    count = 6
    with served(build, reactors=1) as array:
        with ready(array) as raw:
            raw.write(0, b"x" * 32 * MIB)
        before, stuck = memory(array), []
        for i in range(count):
            stuck.append(ready(array, structured=i % 2 == 0))
            stuck[-1].send(in_flight(64, READ))
        for _ in range(10):
            ordinary(array)
        memory_stays_below(array, count * (BUDGET + 8 * MIB) + 64 * MIB, before, "slow readers")
        # Whoever goes on reading gets all there is.
        patient, reads = stuck.pop(), dict.fromkeys(range(64), 4 * MIB)
        seen = sorted(patient.reply(reads).cookie for _ in range(64))
        expect(seen, list(range(64)))
        patient.close()
        for raw in stuck:
            raw.close()
        until(lambda: not clients(array), "the slow readers are gone")
        memory_stays_below(array, 128 * MIB, before, "after slow readers")


def test_endless_small_requests_without_reading_are_stopped_by_the_budget(build):
    with served(build, reactors=1) as array:
        before = memory(array)
        for request in (request_bytes(READ, 1, 0, 4096), request_bytes(FLUSH), request_bytes(99),
                        request_bytes(BLOCK_STATUS, 1, 0, 1)):
            with ready(array) as raw:
                raw.socket.settimeout(1)
                sent, many = 0, request * 10000
                with contextlib.suppress(TimeoutError):
                    while sent < 256 * MIB:
                        sent += raw.socket.send(many[sent % len(many):])
                assert sent < 256 * MIB, "a client may send without end"
                ordinary(array)
        memory_stays_below(array, 64 * MIB, before, "after endless requests")


def test_half_closed_connections_end(build):
    with served(build) as array:
        with ready(array) as raw:  # asks no more
            raw.socket.shutdown(socket.SHUT_WR)
            assert raw.gone()
        with ready(array) as raw:  # asks no more, has asked
            for i in range(8):
                raw.request(READ, i * MIB, MIB)
            raw.socket.shutdown(socket.SHUT_WR)
            raw.drain()
        with ready(array) as raw:  # reads no more
            raw.socket.shutdown(socket.SHUT_RD)
            with contextlib.suppress(Gone):
                raw.request(READ, 0, 32 * MIB)
            until(lambda: not clients(array), "nobody reads the reply, so the connection ends")
        with ready(array) as raw:  # says goodbye and stays
            raw.request(DISC)
            with contextlib.suppress(Gone):
                raw.send(request_bytes(READ, 1, 0, 4096) * 10)
            assert raw.gone()


def test_thousands_of_connections_come_and_go(build):
    """CVE-2013-7441: one connection's fate touches no other."""
    with served(build) as array, ready(array) as friend:
        friend.write(0, b"friend")
        before = memory(array)
        for turn in range(6000):
            with contextlib.suppress(Gone), Raw(array) as raw:
                if turn % 6 == 1:
                    raw.greet()
                elif turn % 6 == 2:
                    raw.greet()
                    raw.option(LIST)
                elif turn % 6 == 3:
                    raw.greet()
                    raw.go()
                elif turn % 6 == 4:
                    raw.greet()
                    raw.go()
                    raw.request(READ, 0, 4096)
                elif turn % 6 == 5:
                    raw.greet(0xFF)
            if turn % 500 == 0:
                expect(friend.read(0, 6), b"friend")
        until(lambda: len(clients(array)) == 1, "only the friend is left")
        expect(friend.read(0, 6), b"friend")
        memory_stays_below(array, 32 * MIB, before, "after 6000 connections")


@every_engine
def test_an_array_stops_with_clients_in_every_state(build, **how):
    """CVE-2024-7409: use after free when a server stops with clients in negotiation."""
    with Array(build, **how) as array:
        array.with_volume()
        held = [*stalls(array), ready(array)]
        with ready(array) as raw:
            raw.write(0, b"x" * 32 * MIB)
        for talk in (request_bytes(READ, 1, 0, 4096)[:9],
                     request_bytes(WRITE, 1, 0, 4 * MIB) + bytes(MIB), in_flight(64, READ),
                     request_bytes(READ, 1, 0, 32 * MIB)):
            held.append(ready(array))
            held[-1].send(talk)
        start = time.monotonic()
        array.stop()
        took = time.monotonic() - start
        assert took < 50, f"stopping took {took:.1f} s"
        for raw in held:
            raw.drain()
            raw.close()
        array.check_log()
        array.start()
        ordinary(array)
        array.stop()
        array.check_log()


def test_a_volume_is_deleted_under_clients_that_never_read(build):
    with served(build) as array:
        array.do("volume", "create", "doomed", "--size", "64M")
        stuck = ready(array, "doomed")
        stuck.write(0, b"x" * 32 * MIB)
        stuck.send(in_flight(64, READ))
        half = ready(array, "doomed")
        half.send(request_bytes(WRITE, 1, 0, 4 * MIB) + bytes(MIB))
        expect(array.refused("volume", "delete", "doomed", "--yes")["code"], "e_busy")
        array.run("volume", "delete", "doomed", "--yes", "--disconnect", check=0)
        expect([v["name"] for v in array.do("volume", "list")], ["vol"])
        for raw in (stuck, half):
            raw.drain()
            raw.close()
