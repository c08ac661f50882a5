"""NBD as its text (doc/proto.md) describes it: every option, command, flag and error."""
import contextlib
import errno
import json
import random
import struct

import rawnbd as nbd_raw
from duplex import KIB, MIB, Array, connect, needs, sh
from marks import every_engine
from rawnbd import (ABORT, ACK, BLOCK_STATUS, CACHE, CHUNK_DATA, DF, DISC, EINVAL, ENOSPC, ENOTSUP,
                    EOVERFLOW, ERR_INVALID, ERR_POLICY, ERR_UNKNOWN, ERR_UNSUP, EXPORT_NAME,
                    EXTENDED_HEADERS, FAST_ZERO, FLUSH, FUA, GO, INFO, INFO_BLOCK_SIZE,
                    INFO_DESCRIPTION, INFO_EXPORT, INFO_NAME, LIST, LIST_META_CONTEXT, META_CONTEXT,
                    NO_HOLE, NO_ZEROES, PEEK_EXPORT, READ, REP_INFO, REQ_ONE, SERVER,
                    SET_META_CONTEXT, STARTTLS, STRUCTURED_REPLY, TRIM, WRITE, WRITE_ZEROES, Raw,
                    go_payload, meta_payload, ready)

SIZE = 64 * MIB
EXTENT = 4 * MIB
HOLE_AND_ZERO, DATA = 3, 0

# HAS_FLAGS FLUSH FUA TRIM WRITE_ZEROES MULTI_CONN CACHE FAST_ZERO; DF with structured replies.
FLAGS = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11
FLAG_DF = 1 << 7

ALLOCATION = b"base:allocation"


def expect(got, wanted, what=""):
    if got != wanted:
        raise AssertionError(f"{what}: got {str(got)[:500]}, wanted {str(wanted)[:500]}")


def still_well(array, volume="vol"):
    """A normal client works, the array stops cleanly, and its log is clean."""
    handle = connect(array, volume)
    handle.pwrite(b"still well", 11)
    handle.flush()
    expect(bytes(handle.pread(10, 11)), b"still well", "an ordinary client")
    handle.shutdown()
    array.stop()
    array.check_log()


@contextlib.contextmanager
def served(build, size="64M", device_size="512M", **how):
    """An array with a volume, which is well when the test is over."""
    with Array(build, **how) as array:
        array.with_volume("vol", size, device_size)
        yield array
        still_well(array)


def pattern(length, seed=1):
    return random.Random(seed).randbytes(length)


def in_transmission(raw):
    """The connection carries requests."""
    raw.write(12345, b"transmission")
    expect(raw.read(12345, 12), b"transmission", "data")


# Handshake.

def test_a_greeting_offers_fixed_newstyle_and_no_zeroes_and_unknown_client_flags_end_it(build):
    with served(build) as array:
        with Raw(array) as raw:
            expect(raw.greet(), 3)
        for bit in range(2, 32):
            with Raw(array) as raw:
                raw.greet(3 | 1 << bit)
                assert raw.gone()


def test_export_name_serves_at_once_with_and_without_its_zeroes(build):
    with served(build) as array:
        for flags in (0, 1, 2, 3):
            for name in (b"vol", b""):
                with Raw(array) as raw:
                    raw.greet(flags)
                    raw.option(EXPORT_NAME, name)
                    expect(struct.unpack(">QH", raw.recv(10)), (SIZE, FLAGS))
                    if not flags & NO_ZEROES:
                        expect(raw.recv(124), bytes(124), "zeroes of EXPORT_NAME")
                    in_transmission(raw)


def test_export_name_after_other_options_keeps_what_they_negotiated(build):
    with served(build) as array, Raw(array) as raw:
        raw.greet()
        expect(raw.verdict(STRUCTURED_REPLY), ACK)
        expect(len(raw.ask(SET_META_CONTEXT, meta_payload("vol", [ALLOCATION]))), 2)
        raw.option(EXPORT_NAME, b"vol")
        expect(struct.unpack(">QH", raw.recv(10)), (SIZE, FLAGS | FLAG_DF))
        in_transmission(raw)
        expect(raw.call(BLOCK_STATUS, 0, SIZE).extents()[1],
               [(EXTENT, DATA), (SIZE - EXTENT, HOLE_AND_ZERO)])


def test_export_name_of_no_volume_ends_the_connection(build):
    with served(build) as array:
        array.do("volume", "create", "second", "--size", "8M")
        for name in (b"nobody", b"", b"vol\0", b"VOL", b"x" * 4096, b"x" * 4097):
            with Raw(array) as raw:
                raw.greet()
                raw.option(EXPORT_NAME, name)
                assert raw.gone(), name
        array.run("volume", "delete", "second", "--yes", check=0)


def test_abort_is_acknowledged_and_ends_the_connection(build):
    with served(build) as array:
        for payload in (b"", b"bye"):
            with Raw(array) as raw:
                raw.greet()
                expect(raw.ask(ABORT, payload), [(ACK, b"")])
                assert raw.gone()
        with Raw(array) as raw:  # and nobody waits for the answer
            raw.greet()
            raw.option(ABORT)


def test_list_names_every_volume_and_takes_no_data(build):
    with served(build) as array:
        names = ["vol"] + [f"v{i}" for i in range(40)]
        for name in names[1:]:
            array.do("volume", "create", name, "--size", "1M")
        with Raw(array) as raw:
            raw.greet()
            expect(raw.verdict(LIST, b"x"), ERR_INVALID)
            replies = raw.ask(LIST)
            expect(replies.pop(), (ACK, b""))
            for kind, body in replies:
                expect(kind, SERVER)
                expect(struct.unpack(">I", body[:4])[0], len(body) - 4, "length of a name")
            expect(sorted(body[4:].decode() for _, body in replies), sorted(names))
            raw.go()
            in_transmission(raw)
        expect(sorted(listed(array)), sorted(names), "libnbd")


def listed(array):
    import nbd  # pylint: disable=import-outside-toplevel
    handle, names = nbd.NBD(), []
    handle.set_opt_mode(True)
    handle.connect_unix(array.nbd)
    handle.opt_list(lambda name, _: names.append(name))
    handle.opt_abort()
    return names


def test_list_of_an_array_without_volumes_is_empty(build):
    with Array(build) as array:
        array.start()
        with Raw(array) as raw:
            raw.greet()
            expect(raw.ask(LIST), [(ACK, b"")])
            expect(raw.verdict(GO, go_payload("")), ERR_UNKNOWN)
        array.do("device", "add", array.path("disk0"), "--name", "disk0", "--size", "64M")
        array.do("volume", "create", "vol", "--size", "4M")
        still_well(array)


def check_infos(infos, name):
    expect(infos[INFO_BLOCK_SIZE], struct.pack(">III", 1, 4096, 32 * MIB))
    if INFO_NAME in infos:
        expect(infos[INFO_NAME], name)
    if INFO_DESCRIPTION in infos:
        assert infos[INFO_DESCRIPTION].decode().strip()


def test_info_tells_all_there_is_to_know_and_opens_nothing(build):
    with served(build) as array, Raw(array) as raw:
        raw.greet()
        everything = (INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE)
        for infos in ((), (INFO_EXPORT,), (INFO_NAME,), (INFO_DESCRIPTION,), (INFO_BLOCK_SIZE,),
                      everything, everything + everything, (4, 77, 0xFFFF), range(2000)):
            for name in ("vol", ""):
                size, flags, found = raw.go(name, infos, option=INFO)
                expect((size, flags), (SIZE, FLAGS))
                assert set(found) >= set(infos) & set(everything), (infos, found)
                assert set(found) <= set(everything), found
                check_infos(found, b"vol")
        expect(raw.verdict(INFO, go_payload("nobody")), ERR_UNKNOWN)
        expect(array.do("volume", "show", "vol")["clients"], [], "INFO opened the volume")
        raw.go()
        expect(len(array.do("volume", "show", "vol")["clients"]), 1)
        in_transmission(raw)


def test_go_answers_infos_and_begins_transmission(build):
    with served(build) as array:
        array.do("volume", "create", "second", "--size", "5000")
        with Raw(array) as raw:
            raw.greet()
            expect(raw.verdict(GO, go_payload("nobody")), ERR_UNKNOWN)
            expect(raw.verdict(GO, go_payload("")), ERR_UNKNOWN, "two volumes, none is the default")
            size, flags, infos = raw.go("second", (INFO_NAME, INFO_DESCRIPTION))
            expect((size, flags), (8192, FLAGS), "5000 bytes are rounded up to whole blocks")
            check_infos(infos, b"second")
            raw.write(8191, b"z")
            expect(raw.read(8190, 2), b"\0z")
            expect(raw.error_of(WRITE, 8191, 2, 0, b"xy"), ENOSPC)
        array.run("volume", "delete", "second", "--yes", check=0)


def test_structured_reply_is_acknowledged_each_time_and_takes_no_data(build):
    with served(build) as array, Raw(array) as raw:
        raw.greet()
        expect(raw.verdict(STRUCTURED_REPLY, b"x"), ERR_INVALID)
        expect(raw.go(option=INFO)[1], FLAGS, "refused, so there is no DF")
        expect(raw.ask(STRUCTURED_REPLY), [(ACK, b"")])
        expect(raw.ask(STRUCTURED_REPLY), [(ACK, b"")])
        expect(raw.go(option=INFO)[1], FLAGS | FLAG_DF)
        raw.go()
        in_transmission(raw)


def contexts(raw, option, queries, name="vol"):
    """(id, name) of the contexts an option answers with."""
    replies = raw.ask(option, meta_payload(name, queries))
    expect(replies.pop(), (ACK, b""))
    for kind, _ in replies:
        expect(kind, META_CONTEXT)
    return [(struct.unpack(">I", body[:4])[0], body[4:]) for _, body in replies]


STRANGERS = [b"qemu:dirty-bitmap:x", b"x-mine:y", b"base", b"base:other", b"", b":",
             b"BASE:allocation", b"base:allocation2", b"base:allocatio", b"\xff\xfe", b"n" * 4096]


def test_list_meta_context_finds_base_allocation_and_nothing_in_other_namespaces(build):
    with served(build) as array, Raw(array) as raw:
        raw.greet()
        raw.ask(STRUCTURED_REPLY)
        for queries in ([], [b"base:"], [ALLOCATION], [b"base:", ALLOCATION], [b"x-y:z", b"base:"]):
            expect(contexts(raw, LIST_META_CONTEXT, queries), [(0, ALLOCATION)], queries)
        for query in STRANGERS:
            expect(contexts(raw, LIST_META_CONTEXT, [query]), [], query)
        expect(contexts(raw, LIST_META_CONTEXT, STRANGERS), [])
        expect(raw.verdict(LIST_META_CONTEXT, meta_payload("nobody")), ERR_UNKNOWN)
        # It selects nothing.
        raw.go()
        expect(raw.error_of(BLOCK_STATUS, 0, 4096), EINVAL)
        in_transmission(raw)


def test_set_meta_context_selects_base_allocation_by_its_whole_name_only(build):
    with served(build) as array, Raw(array) as raw:
        raw.greet()
        expect(raw.verdict(SET_META_CONTEXT, meta_payload("vol", [ALLOCATION])), ERR_INVALID,
               "before STRUCTURED_REPLY")
        raw.ask(STRUCTURED_REPLY)
        for query in STRANGERS + [b"base:"]:
            expect(contexts(raw, SET_META_CONTEXT, [query]), [], query)
        expect(contexts(raw, SET_META_CONTEXT, []), [])
        expect(raw.verdict(SET_META_CONTEXT, meta_payload("nobody", [ALLOCATION])), ERR_UNKNOWN)
        [(number, name)] = contexts(raw, SET_META_CONTEXT, STRANGERS + [ALLOCATION, ALLOCATION])
        expect(name, ALLOCATION)
        raw.go()
        expect(raw.call(BLOCK_STATUS, 0, SIZE).extents(), (number, [(SIZE, HOLE_AND_ZERO)]))
        in_transmission(raw)


def test_the_last_set_meta_context_counts_and_for_its_own_volume_only(build):
    with served(build) as array:
        array.do("volume", "create", "second", "--size", "8M")
        chosen = meta_payload("vol", [ALLOCATION])
        for later in (meta_payload("vol", []), meta_payload("vol", [b"x-y:z"]), chosen + b"x",
                      meta_payload("nobody", [ALLOCATION]), meta_payload("second", [ALLOCATION])):
            with Raw(array) as raw:
                raw.greet()
                raw.ask(STRUCTURED_REPLY)
                expect(raw.verdict(SET_META_CONTEXT, chosen), ACK)
                raw.ask(SET_META_CONTEXT, later)
                raw.go()
                expect(raw.error_of(BLOCK_STATUS, 0, 4096), EINVAL, later)
                in_transmission(raw)
        array.run("volume", "delete", "second", "--yes", check=0)


def test_starttls_is_refused_by_policy_and_the_client_may_go_on(build):
    import nbd  # pylint: disable=import-outside-toplevel
    with served(build) as array:
        with Raw(array) as raw:
            raw.greet()
            expect(raw.verdict(STARTTLS), ERR_POLICY)
            raw.go()
            in_transmission(raw)
        if nbd.NBD().supports_tls():
            connect(array, tls=nbd.TLS_ALLOW).shutdown()
            try:
                connect(array, tls=nbd.TLS_REQUIRE)
                raise AssertionError("a client that requires TLS was served without")
            except nbd.Error:
                pass


def test_unknown_options_are_unsupported_and_the_client_may_go_on(build):
    with served(build) as array, Raw(array) as raw:
        raw.greet()
        for number in (0, PEEK_EXPORT, EXTENDED_HEADERS, 12, 255, 0x8000_0000, 0xFFFF_FFFF):
            for payload in (b"", b"x", bytes(65536)):
                expect(raw.verdict(number, payload), ERR_UNSUP, number)
        raw.go()
        in_transmission(raw)


def test_an_error_of_an_option_says_why_in_words(build):
    with served(build) as array, Raw(array) as raw:
        raw.greet()
        for option, payload in ((GO, go_payload("nobody")), (STARTTLS, b""), (PEEK_EXPORT, b""),
                                (LIST, b"x"), (GO, b"")):
            kind, text = raw.ask(option, payload)[-1]
            assert kind >= ERR_UNSUP, kind
            assert 5 < len(text.decode()) < 4096, text


def test_requests_may_come_in_one_piece_with_the_option_before_them(build):
    with served(build) as array:
        for structured in (False, True):
            with Raw(array) as raw:
                raw.greet()
                if structured:
                    raw.ask(STRUCTURED_REPLY)
                go = go_payload("vol")
                data = pattern(70000)
                raw.send(nbd_raw.option_head(GO, len(go)) + go
                         + nbd_raw.request_bytes(WRITE, 1, 4097, len(data)) + data
                         + nbd_raw.request_bytes(READ, 2, 4097, len(data)))
                while raw.option_reply(GO)[0] == REP_INFO:
                    pass
                answers = {}
                for _ in range(2):
                    answer = raw.reply({2: len(data)})
                    answers[answer.cookie] = answer
                expect(sorted(answers), [1, 2])
                expect([answers[1].error, answers[2].error], [0, 0])
                expect(raw.read(4097, len(data)), data)


def test_a_client_that_sends_byte_by_byte_is_served(build):
    with served(build) as array, Raw(array) as raw:
        def dribble(data):
            for at in range(len(data)):
                raw.send(data[at:at + 1])

        raw.recv(18)
        go = go_payload("vol", (INFO_NAME,))
        dribble(struct.pack(">I", 3) + nbd_raw.option_head(GO, len(go)) + go)
        while raw.option_reply(GO)[0] == REP_INFO:
            pass
        dribble(nbd_raw.request_bytes(WRITE, 7, 100, 50) + pattern(50))
        expect(raw.reply().cookie, 7)
        expect(raw.read(100, 50), pattern(50))


# Transmission.

def test_libnbd_sees_every_feature(build):
    with served(build) as array:
        handle = connect(array)
        for name in ("can_cache", "can_df", "can_fast_zero", "can_flush", "can_fua",
                     "can_multi_conn", "can_trim", "can_zero", "get_structured_replies_negotiated"):
            expect(getattr(handle, name)(), True, name)
        expect([handle.is_read_only(), handle.is_rotational()], [False, False])
        expect(handle.get_size(), SIZE)
        expect([handle.get_block_size(i) for i in range(3)], [1, 4096, 32 * MIB])
        handle.shutdown()
        needs("nbdinfo")
        assert "base:allocation" in sh("nbdinfo", array.uri("vol")).stdout


LENGTHS = [1, 2, 511, 512, 513, 4095, 4096, 4097, 65536, 65537, 300000]


def model_step(raw, dice, model):
    """One random request against the volume and its model."""
    size = len(model)
    length = dice.choice(LENGTHS + [dice.randrange(1, 9000)])
    offset = dice.choice([dice.randrange(size - length + 1), size - length,
                          dice.randrange((size - length) // 4096 + 1) * 4096])
    command = dice.choice([READ, READ, WRITE, WRITE, WRITE, WRITE_ZEROES, TRIM, FLUSH, CACHE])
    flags = dice.choice([0, FUA])
    if command == READ:
        expect(raw.read(offset, length, flags) == model[offset:offset + length], True,
               f"READ of {length} at {offset}")
    elif command == WRITE:
        data = dice.randbytes(length)
        raw.write(offset, data, flags)
        model[offset:offset + length] = data
    elif command == WRITE_ZEROES:
        flags |= dice.choice([0, NO_HOLE, FAST_ZERO])
        error = raw.error_of(command, offset, length, flags)
        if flags & FAST_ZERO and error == ENOTSUP:
            error = raw.error_of(command, offset, length)
        expect(error, 0)
        model[offset:offset + length] = bytes(length)
    elif command == TRIM:
        # Zeroes whole regions of 64 KiB and nothing beside them.
        expect(raw.error_of(command, offset, length, flags), 0)
        begin, end = -(-offset // 65536) * 65536, (offset + length) // 65536 * 65536
        if begin < end:
            model[begin:end] = bytes(end - begin)
    elif command == FLUSH:
        expect(raw.error_of(command, 0, 0, flags), 0)
    else:
        expect(raw.error_of(command, offset, length, flags), 0)


@every_engine
def test_any_offset_and_length_from_one_byte_on(build, **how):
    """Random requests against a model, with simple and with structured replies; the last extent
    of the volumes is a short one, and one of them is thick."""
    with served(build, **how) as array:
        models, size = {"thin": bytearray(5 * MIB), "thick": bytearray(5 * MIB)}, 5 * MIB
        array.do("volume", "create", "thin", "--size", size)
        array.do("volume", "create", "thick", "--size", size, "--thick")
        for seed, (name, model) in enumerate(models.items()):
            dice = random.Random(seed)
            for structured in (False, True):
                with ready(array, name, structured) as raw:
                    for _ in range(250):
                        model_step(raw, dice, model)
        array.stop()
        array.start()
        for name, model in models.items():
            with ready(array, name) as raw:
                expect(raw.read(0, size) == model, True, f"{name}: all of it after a restart")


def test_a_read_is_answered_in_the_form_that_was_negotiated(build):
    with served(build) as array:
        data = pattern(100000)
        with ready(array, structured=False) as raw:
            raw.write(777, data)
            expect(raw.read(777, len(data)), data)
            expect(raw.error_of(READ, SIZE, 1), EINVAL)
        with ready(array) as raw:
            expect(raw.read(777, len(data)), data)
            expect(raw.error_of(READ, SIZE, 1), EINVAL)
            in_transmission(raw)


def test_df_brings_one_chunk_with_the_holes_in_it(build):
    with served(build) as array, ready(array) as raw:
        raw.write(EXTENT, b"x" * 4096)
        # A hole, data and a hole again.
        for length in (1, 65536, 3 * EXTENT, 32 * MIB):
            answer = raw.call(READ, EXTENT - 1, length, DF)
            expect(answer.error, 0)
            expect([kind for kind, _ in answer.chunks], [CHUNK_DATA], length)
            got = answer.data(EXTENT - 1, length)
            expect(got == (b"\0" + b"x" * 4096).ljust(length, b"\0")[:length], True, length)
        expect(raw.error_of(READ, 0, 32 * MIB + 1, DF), EOVERFLOW)
        in_transmission(raw)


def test_requests_of_32_mib_are_served(build):
    with served(build) as array:
        data = pattern(32 * MIB)
        for structured in (False, True):
            with ready(array, structured=structured) as raw:
                raw.write(SIZE // 2 - 3, data)
                expect(raw.read(SIZE // 2 - 3, len(data)) == data, True, "read back")
        handle = connect(array)
        handle.pwrite(data, 0)
        expect(handle.pread(len(data), 0) == data, True, "libnbd")
        handle.shutdown()


def test_longer_reads_overflow_and_longer_writes_end_the_connection(build):
    with served(build, size="128M") as array:
        for structured in (False, True):
            with ready(array, structured=structured) as raw:
                for length in (32 * MIB + 1, 64 * MIB, 0xFFFF_FFFF):
                    expect(raw.error_of(READ, 0, length), EOVERFLOW)
                in_transmission(raw)
        for length in (32 * MIB + 1, 0xFFFF_FFFF):
            with ready(array) as raw:
                raw.write(0, b"before")
                with contextlib.suppress(nbd_raw.Gone):
                    raw.request(WRITE, 0, length, 0, b"after!" * 10000)
                assert raw.gone()
            with ready(array) as raw:
                expect(raw.read(0, 6), b"before", "a refused write changed something")


def test_requests_without_payload_may_be_longer_than_32_mib(build):
    with served(build, size="128M") as array, ready(array, allocation=True) as raw:
        raw.write(0, b"a")
        raw.write(40 * MIB, b"b")
        raw.write(128 * MIB - 1, b"c")
        expect(raw.error_of(CACHE, 0, 128 * MIB), 0)
        expect(raw.call(BLOCK_STATUS, 0, 128 * MIB).extents()[1],
               [(EXTENT, DATA), (36 * MIB, HOLE_AND_ZERO), (EXTENT, DATA),
                (80 * MIB, HOLE_AND_ZERO), (EXTENT, DATA)])
        expect(raw.error_of(WRITE_ZEROES, 1, 128 * MIB - 2), 0)
        expect([raw.read(0, 2), raw.read(40 * MIB, 1), raw.read(128 * MIB - 1, 1)],
               [b"a\0", b"\0", b"c"])
        expect(raw.error_of(TRIM, 0, 128 * MIB), 0)
        expect([raw.read(0, 2), raw.read(128 * MIB - 1, 1)], [b"\0\0", b"\0"])
        expect(raw.call(BLOCK_STATUS, 0, 128 * MIB).extents()[1], [(128 * MIB, HOLE_AND_ZERO)])


def test_a_flush_on_one_connection_covers_writes_answered_on_another(build):
    """CAN_MULTI_CONN: visible at once, and there after a kill."""
    with served(build, reactors=4) as array:
        with ready(array) as one, ready(array) as two, ready(array, structured=False) as three:
            for i in range(50):
                data = pattern(9000, i)
                one.write(i * MIB + i, data, FUA if i % 2 else 0)
                expect(two.read(i * MIB + i, len(data)), data, "visible on another connection")
            expect(two.error_of(FLUSH), 0)
            expect(three.read(MIB + 1, 9000), pattern(9000, 1))
        array.kill()
        array.start()
        with ready(array) as raw:
            for i in range(50):
                expect(raw.read(i * MIB + i, 9000) == pattern(9000, i), True, "after a kill")


def test_fua_is_taken_on_every_command(build):
    with served(build) as array, ready(array, allocation=True) as raw:
        raw.write(3, b"fua", FUA)
        expect(raw.read(3, 3, FUA), b"fua")
        expect(raw.error_of(WRITE_ZEROES, 4, 1, FUA), 0)
        expect(raw.read(3, 3), b"f\0a")
        expect(raw.error_of(TRIM, 0, EXTENT, FUA), 0)
        expect(raw.error_of(CACHE, 0, EXTENT, FUA), 0)
        expect(raw.error_of(FLUSH, 0, 0, FUA), 0)
        expect(raw.error_of(BLOCK_STATUS, 0, EXTENT, FUA), 0)


def test_trim_gives_whole_extents_back_and_leaves_the_bytes_beside_it(build):
    with served(build) as array, ready(array, allocation=True) as raw:
        data = bytearray(pattern(3 * EXTENT))
        raw.write(0, bytes(data))
        expect(array.do("volume", "show", "vol")["allocated"], 3 * EXTENT)
        begin, end = EXTENT - 70001, 2 * EXTENT + 70001
        expect(raw.error_of(TRIM, begin, end - begin), 0)
        got = raw.read(0, len(data))
        expect(got[:begin] == data[:begin] and got[end:] == data[end:], True, "beside the trim")
        expect(got[EXTENT:2 * EXTENT] == bytes(EXTENT), True, "the whole extent reads as zeroes")
        expect(raw.call(BLOCK_STATUS, 0, 3 * EXTENT).extents()[1],
               [(EXTENT, DATA), (EXTENT, HOLE_AND_ZERO), (EXTENT, DATA)])
        expect(array.do("volume", "show", "vol")["allocated"], 2 * EXTENT)
        # Less than it can use: no error, and what is not trimmed is as it was.
        for length in (1, 511, 4096):
            before = raw.read(2 * EXTENT + 200001, 9000)
            expect(raw.error_of(TRIM, 2 * EXTENT + 200001, length), 0)
            after = raw.read(2 * EXTENT + 200001, 9000)
            expect(after[length:] == before[length:], True, "beside a small trim")


def test_write_zeroes_makes_holes_and_with_no_hole_keeps_the_space(build):
    with served(build) as array, ready(array, allocation=True) as raw:
        data = pattern(4 * EXTENT)
        raw.write(0, data)
        expect(raw.error_of(WRITE_ZEROES, EXTENT, EXTENT), 0)
        expect(raw.error_of(WRITE_ZEROES, 2 * EXTENT, EXTENT, NO_HOLE), 0)
        expect(raw.read(EXTENT, 2 * EXTENT) == bytes(2 * EXTENT), True)
        expect(raw.read(3 * EXTENT, EXTENT) == data[3 * EXTENT:], True)
        expect(raw.call(BLOCK_STATUS, 0, 4 * EXTENT).extents()[1],
               [(EXTENT, DATA), (EXTENT, HOLE_AND_ZERO), (2 * EXTENT, DATA)])
        # NO_HOLE allocates what was a hole: later writes there cannot run out of space.
        expect(raw.error_of(WRITE_ZEROES, 8 * EXTENT + 5, 1, NO_HOLE), 0)
        expect(raw.call(BLOCK_STATUS, 8 * EXTENT, 2 * EXTENT).extents()[1],
               [(EXTENT, DATA), (EXTENT, HOLE_AND_ZERO)])
        # Zeroes into a hole leave it a hole, written or not.
        raw.write(12 * EXTENT + 1, bytes(9999))
        expect(raw.error_of(WRITE_ZEROES, 12 * EXTENT + 1, 9999), 0)
        expect(raw.call(BLOCK_STATUS, 12 * EXTENT, EXTENT).extents()[1], [(EXTENT, HOLE_AND_ZERO)])


def test_fast_zero_is_fast_or_not_supported_and_never_half_done(build):
    with served(build) as array, ready(array, allocation=True) as raw:
        data = pattern(2 * EXTENT)
        raw.write(0, data)
        expect(raw.error_of(WRITE_ZEROES, 0, EXTENT, FAST_ZERO | NO_HOLE), ENOTSUP)
        expect(raw.read(0, EXTENT) == data[:EXTENT], True, "refused, and yet it changed something")
        # A whole extent is released: that is always fast.
        expect(raw.error_of(WRITE_ZEROES, 0, EXTENT, FAST_ZERO), 0)
        expect(raw.read(0, EXTENT) == bytes(EXTENT), True)
        # A hole is zero already.
        expect(raw.error_of(WRITE_ZEROES, 5 * EXTENT + 4096, 8192, FAST_ZERO | FUA), 0)
        # A part of an extent depends on what the device can.
        error = raw.error_of(WRITE_ZEROES, EXTENT + 8192, 65536, FAST_ZERO)
        assert error in (0, ENOTSUP), error
        wanted = bytes(65536) if error == 0 else data[EXTENT + 8192:EXTENT + 8192 + 65536]
        expect(raw.read(EXTENT + 8192, 65536) == wanted, True, f"after error {error}")
        expect(raw.read(EXTENT, 8192) == data[EXTENT:EXTENT + 8192], True)


def test_block_status_describes_any_range_without_gap_or_excess(build):
    with served(build) as array, ready(array, allocation=True) as raw:
        model = [HOLE_AND_ZERO] * 16
        for extent in (1, 2, 7, 15):
            raw.write(extent * EXTENT + 99, b"data")
            model[extent] = DATA
        dice = random.Random(2)
        ranges = [(0, SIZE), (0, 1), (SIZE - 1, 1), (EXTENT - 1, 2), (EXTENT, EXTENT)]
        ranges += [sorted((dice.randrange(SIZE), dice.randrange(SIZE))) for _ in range(60)]
        for offset, length in ranges[:5] + [(a, b - a + 1) for a, b in ranges[5:]]:
            _, extents = raw.call(BLOCK_STATUS, offset, length).extents()
            expect(sum(size for size, _ in extents), length, (offset, length))
            assert all(size > 0 for size, _ in extents), extents
            assert all(a[1] != b[1] for a, b in zip(extents, extents[1:])), extents
            at = offset
            for size, flags in extents:
                for extent in range(at // EXTENT, (at + size - 1) // EXTENT + 1):
                    expect(flags, model[extent], (offset, length, extents))
                at += size
            _, one = raw.call(BLOCK_STATUS, offset, length, REQ_ONE).extents()
            expect(one, extents[:1], "REQ_ONE")


def test_block_status_of_very_many_runs_ends_early_and_can_be_continued(build):
    needs("curl")
    with Array(build) as array:
        array.start()
        device = json.dumps({"path": array.path("disk0"), "name": "disk0", "size": "512M",
                             "extent_size": "64K"})
        sh("curl", "-sf", "--unix-socket", array.api, "-d", device, "http://x/api/v1/devices")
        array.do("volume", "create", "vol", "--size", "160M")
        size, step = 160 * MIB, 128 * KIB
        with ready(array, allocation=True) as raw:
            cookies = {raw.request(WRITE, at, 1, 0, b"x") for at in range(0, size, step)}
            for _ in range(len(cookies)):
                answer = raw.reply()
                cookies.remove(answer.cookie)
                expect(answer.error, 0)
            at, rounds, runs = 0, 0, []
            while at < size:
                _, extents = raw.call(BLOCK_STATUS, at, size - at).extents()
                assert len(extents) <= 1024, "a reply is bounded"
                at += sum(length for length, _ in extents)
                runs += extents
                rounds += 1
            expect(rounds, 3)
            expect(runs == [(64 * KIB, DATA), (64 * KIB, HOLE_AND_ZERO)] * (size // step), True)
        still_well(array)


def test_libnbd_reads_extents_holes_and_chunks(build):
    import nbd  # pylint: disable=import-outside-toplevel
    with served(build) as array:
        handle = nbd.NBD()
        handle.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        handle.connect_uri(array.uri("vol"))
        expect(handle.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION), True)
        handle.pwrite(b"x" * 10, EXTENT)
        seen = []
        handle.block_status(
            SIZE, 0, lambda name, at, entries, _: seen.append((name, at, list(entries))))
        expect(seen, [("base:allocation", 0, [EXTENT, 3, EXTENT, 0, SIZE - 2 * EXTENT, 3])])
        chunks = []
        data = handle.pread_structured(
            20, EXTENT - 5, lambda part, at, kind, _: chunks.append((bytes(part), at, kind)),
            nbd.CMD_FLAG_DF)
        expect(bytes(data), bytes(5) + b"x" * 10 + bytes(5))
        expect([kind for *_, kind in chunks], [nbd.READ_DATA])
        handle.zero(10, EXTENT, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
        handle.cache(4096, 0)
        handle.trim(EXTENT, EXTENT)
        expect(bytes(handle.pread(10, EXTENT)), bytes(10))
        handle.shutdown()


# Errors. After each one the connection is in step.

def test_unknown_commands_and_flags_are_einval_and_the_connection_lives(build):
    allowed = {READ: FUA | DF, WRITE: FUA, FLUSH: FUA, TRIM: FUA, CACHE: FUA,
               WRITE_ZEROES: FUA | NO_HOLE | FAST_ZERO, BLOCK_STATUS: FUA | REQ_ONE}
    with served(build) as array, ready(array, allocation=True) as raw:
        raw.write(0, b"keep")
        for command in (8, 9, 255, 256, 0x8000, 0xFFFF):
            expect(raw.error_of(command, 0, 4), EINVAL, command)
        for command, good in allowed.items():
            length = 0 if command == FLUSH else 4
            payload = b"lost" if command == WRITE else b""
            for bit in range(16):
                if not good >> bit & 1:
                    expect(raw.error_of(command, 0, length, 1 << bit, payload), EINVAL,
                           (command, bit))
        expect(raw.read(0, 4), b"keep", "a refused request changed something")


def test_ranges_beyond_the_end_are_refused_by_kind_of_command(build):
    with served(build) as array, ready(array, allocation=True) as raw:
        raw.write(SIZE - 8, b"the end.")
        for offset, length in ((SIZE, 1), (SIZE - 4, 5), (SIZE + 1, 4), (1 << 62, 4096),
                               ((1 << 63) - 1, 4096), (1 << 63, 8), ((1 << 64) - 1, 1),
                               ((1 << 64) - 4096, 8192)):
            for command in (READ, TRIM, CACHE, BLOCK_STATUS):
                expect(raw.error_of(command, offset, length), EINVAL, (command, offset, length))
            expect(raw.error_of(WRITE, offset, length, 0, b"!" * length), ENOSPC, (offset, length))
            expect(raw.error_of(WRITE_ZEROES, offset, length), ENOSPC, (offset, length))
        expect(raw.error_of(TRIM, 0, 0xFFFF_FFFF), EINVAL)
        expect(raw.error_of(WRITE_ZEROES, 0, 0xFFFF_FFFF), ENOSPC)
        expect(raw.read(SIZE - 8, 8), b"the end.", "a refused request changed something")


def test_flush_with_a_range_and_status_without_context_are_einval(build):
    with served(build) as array:
        with ready(array) as raw:
            expect([raw.error_of(FLUSH, 1, 0), raw.error_of(FLUSH, 0, 1)], [EINVAL, EINVAL])
            expect(raw.error_of(BLOCK_STATUS, 0, 4096), EINVAL)
            in_transmission(raw)
        with ready(array, structured=False) as raw:
            expect(raw.error_of(BLOCK_STATUS, 0, 4096), EINVAL)
            in_transmission(raw)
        with ready(array, allocation=True) as raw:
            expect(raw.error_of(BLOCK_STATUS, 0, 0), EINVAL, "no descriptor may be empty")
            in_transmission(raw)


def test_requests_of_no_bytes_change_nothing(build):
    with served(build) as array:
        for structured in (False, True):
            with ready(array, structured=structured) as raw:
                raw.write(0, b"keep")
                for offset in (0, 1, SIZE):
                    for command in (WRITE, WRITE_ZEROES, TRIM, CACHE):
                        expect(raw.error_of(command, offset, 0, FUA), 0, (command, offset))
                    expect(raw.error_of(READ, offset, 0), 0)
                expect(raw.error_of(READ, SIZE + 1, 0), EINVAL)
                expect(raw.read(0, 4), b"keep")


def test_a_full_pool_answers_enospc_and_the_connection_lives(build):
    with served(build, size="256M", device_size="64M") as array, ready(array) as raw:
        raw.write(0, b"mapped")
        data, refused = pattern(EXTENT), None
        for extent in range(1, 64):
            error = raw.error_of(WRITE, extent * EXTENT, EXTENT, 0, data)
            if error:
                expect(error, ENOSPC)
                refused = extent
                break
        assert refused, "64 MiB took 256 MiB"
        raw.write(0, b"MAPPED")
        expect(raw.read(refused * EXTENT, 4096), bytes(4096), "a hole stays one")
        expect(raw.error_of(WRITE_ZEROES, refused * EXTENT, 4096, NO_HOLE), ENOSPC)
        expect(raw.error_of(WRITE_ZEROES, refused * EXTENT, 4096), 0, "zeroes need no space")
        for extent in range(1, refused):
            expect(raw.read(extent * EXTENT, EXTENT) == data, True, extent)
        expect(raw.error_of(TRIM, EXTENT, 2 * EXTENT), 0)
        raw.write(refused * EXTENT, data)
        expect(raw.read(refused * EXTENT, EXTENT) == data, True, "trimmed space is used again")


def test_libnbd_sees_the_errors_as_errno(build):
    import nbd  # pylint: disable=import-outside-toplevel
    with served(build) as array:
        handle = connect(array, strict_mode=0)
        for wanted, call in ((errno.EINVAL, lambda: handle.pread(1, SIZE)),
                             (errno.ENOSPC, lambda: handle.pwrite(b"x", SIZE)),
                             (errno.EINVAL, lambda: handle.trim(1, SIZE)),
                             (errno.ENOTSUP, lambda: handle.zero(
                                 4096, 0, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE))):
            try:
                call()
                raise AssertionError("not refused")
            except nbd.Error as error:
                expect(error.errnum, wanted, str(error))
        handle.shutdown()


# Order.

def test_many_requests_at_once_are_each_answered_under_their_cookie(build):
    with served(build) as array, ready(array) as raw:
        dice, slot = random.Random(9), 65536
        data = {i: dice.randbytes(dice.randrange(1, 9000)) for i in range(400)}
        writes = {raw.request(WRITE, i * slot + i, len(part), 0, part): i
                  for i, part in data.items()}
        for _ in range(len(data)):
            answer = raw.reply()
            expect(answer.error, 0)
            del writes[answer.cookie]
        order = list(data)
        dice.shuffle(order)
        reads = {raw.request(READ, i * slot + i, len(data[i])): i for i in order}
        for _ in order:
            answer = raw.reply()
            i = reads.pop(answer.cookie)
            expect(answer.data(i * slot + i, len(data[i])) == data[i], True, i)


def test_cookies_are_given_back_whatever_they_are(build):
    with served(build) as array, ready(array) as raw:
        for cookie in (0, 1, (1 << 64) - 1, 1 << 63, 0x25609513_25609513):
            raw.send(nbd_raw.request_bytes(READ, cookie, 0, 10) * 2)
            expect([raw.reply().cookie, raw.reply().cookie], [cookie, cookie])


def test_a_disconnect_answers_what_was_asked_before_it(build):
    with served(build) as array, ready(array) as raw:
        data = pattern(3 * MIB)
        cookies = {raw.request(WRITE, i * 4 * MIB, len(data), 0, data) for i in range(8)}
        cookies.add(raw.request(FLUSH))
        raw.request(DISC)
        for _ in range(9):
            answer = raw.reply()
            expect(answer.error, 0)
            cookies.remove(answer.cookie)
        assert raw.gone()
        with ready(array) as again:
            for i in range(8):
                expect(again.read(i * 4 * MIB, len(data)) == data, True, i)


def test_writes_to_the_same_bytes_leave_one_of_them_whole(build):
    with served(build, reactors=4) as array:
        with ready(array) as one, ready(array) as two:
            for turn in range(30):
                offset, length = 1000 + turn, 20000
                one.request(WRITE, offset, length, 0, b"1" * length)
                two.request(WRITE, offset, length, 0, b"2" * length)
                expect([one.reply().error, two.reply().error], [0, 0])
                got = one.read(offset, length)
                assert got in (b"1" * length, b"2" * length), "two writes are mixed"


def test_a_volume_that_shrinks_under_a_client_refuses_what_is_gone(build):
    with served(build) as array, ready(array) as raw:
        raw.write(0, b"stays")
        raw.write(48 * MIB, b"goes")
        array.run("volume", "resize", "vol", "--size", "32M", "--discard", "--yes", check=0)
        expect(raw.error_of(READ, 48 * MIB, 4), EINVAL)
        expect(raw.error_of(WRITE, 48 * MIB, 4, 0, b"lost"), ENOSPC)
        expect(raw.read(0, 5), b"stays")
        with ready(array, structured=False) as again:
            expect(again.read(32 * MIB - 1, 1), b"\0")
