"""Mirrors as people use them: the verbs, what hosts may do meanwhile, restarts and kills."""
import json
import os
import time

from duplex import KIB, MIB, Array, connect
from test_lifecycle import expect, on_terminal

FIG7 = os.path.join(os.path.dirname(__file__), "..", "data", "fig7.pairs")
ROW = ("name", "source", "target", "kind", "mode", "state", "progress", "changed_bytes",
       "changed_bytes_source", "changed_bytes_target", "cut")


def with_volumes(array, *names, size="64M"):
    array.start()
    array.do("device", "add", array.path("disk0"), "--name", "disk0", "--size", "1G")
    for name in names:
        array.do("volume", "create", name, "--size", size)
    return array


def mirror(array, name):
    return array.do("mirror", "show", name)


def wait_for(array, name, state, limit=60):
    end = time.monotonic() + limit
    while mirror(array, name)["state"] != state:
        assert time.monotonic() < end, mirror(array, name)
        time.sleep(0.05)


def write(array, volume, data, offset=0):
    handle = connect(array, volume)
    for at in range(0, len(data), 16 * MIB):
        handle.pwrite(data[at:at + 16 * MIB], offset + at)
    handle.flush()
    handle.shutdown()


def read(array, volume, length, offset=0):
    handle = connect(array, volume)
    data = handle.pread(length, offset)
    handle.shutdown()
    return bytes(data)


def refuses_hosts(array, volume):
    import nbd  # pylint: disable=import-outside-toplevel
    try:
        connect(array, volume).shutdown()
    except nbd.Error:
        return True
    return False


def test_a_mirror_from_its_copy_to_its_end(build):
    """create, split, both written, resync, restore, verify, delete: the bytes each time."""
    with with_volumes(Array(build), "db", "copy") as array:
        old, new, clone = (os.urandom(3 * MIB) for _ in range(3))
        write(array, "db", old, 5 * MIB)
        made = array.do("mirror", "create", "m1", "db", "copy", "--wait")
        expect((made["state"], made["created_now"]), ("SYNC", True))
        for key in ROW:
            assert key in array.do("mirror", "list")[0], key
        again = array.do("mirror", "create", "m1", "db", "copy")
        expect((again["state"], again["created_now"]), ("SYNC", False), "the same again")
        assert refuses_hosts(array, "copy"), "a host has opened a target in SYNC"
        cut = array.do("split", "m1")
        expect(([m["name"] for m in cut["members"]], [m["state"] for m in cut["members"]]),
               (["m1"], ["SPLIT"]))
        assert cut["certified"] and 0 <= cut["hold_us"] < 250_000, cut
        expect(read(array, "copy", 3 * MIB, 5 * MIB) == old, True, "the copy")
        write(array, "db", new, 5 * MIB)
        write(array, "copy", clone, 20 * MIB)
        expect(read(array, "copy", 3 * MIB, 5 * MIB) == old, True, "the copy of the cut")
        expect(read(array, "db", 3 * MIB, 20 * MIB), bytes(3 * MIB), "the source")
        info = mirror(array, "m1")
        assert info["changed_bytes_source"] >= 3 * MIB and info["changed_bytes_target"] >= 3 * MIB
        array.do("mirror", "restore", "m1", "--yes", "--wait")
        expect(mirror(array, "m1")["state"], "SPLIT")
        expect(read(array, "db", 3 * MIB, 5 * MIB) == old, True, "restored")
        expect(read(array, "db", 3 * MIB, 20 * MIB) == clone, True, "restored")
        write(array, "db", new, 5 * MIB)
        expect(array.do("mirror", "resync", "m1", "--wait")[0]["state"], "SYNC")
        expect(array.do("mirror", "verify", "m1", "--wait")[0]["state"], "SYNC")
        array.do("split", "m1", "--access", "ro")
        expect(read(array, "copy", 3 * MIB, 5 * MIB) == new, True, "after the resync")
        handle = connect(array, "copy")
        expect(handle.is_read_only(), True)
        handle.shutdown()
        array.run("mirror", "delete", "m1", "--yes", check=0)
        expect(array.do("mirror", "list"), [])
        write(array, "copy", b"free", 0)
        array.stop()
        array.check_log()


def test_a_target_that_holds_data_is_overwritten_on_request_only(build):
    with with_volumes(Array(build), "db", "copy", "other") as array:
        write(array, "copy", b"x" * MIB)
        error = array.refused("mirror", "create", "m1", "db", "copy")
        assert "copy" in error["message"] and "--overwrite" in error["next"], error
        expect(array.do("mirror", "list"), [])
        expect(read(array, "copy", MIB), b"x" * MIB)
        array.do("mirror", "create", "m1", "db", "copy", "--overwrite", "--wait")
        expect(array.refused("mirror", "create", "m1", "db", "other")["code"][:2], "e_")
        for words in (("--mode", "async"), ("--fence", "data")):
            expect(array.refused("mirror", "create", "m2", "db", "other", *words)["code"], "e_notsup")


def test_a_resync_with_an_open_target_names_the_client(build):
    with with_volumes(Array(build), "db", "copy") as array:
        array.do("mirror", "create", "m1", "db", "copy", "--wait")
        array.do("split", "m1")
        handle = connect(array, "copy")
        handle.pwrite(b"mine", 0)
        error = array.refused("mirror", "resync", "m1")
        expect(error["code"], "e_busy")
        assert "pid" in error["message"] and "--disconnect" in error["next"], error
        second = connect(array, "copy")
        error = array.refused("mirror", "resync", "m1")
        assert error["message"].endswith(f"pid {os.getpid()} (2 connections)"), error
        second.shutdown()
        expect(mirror(array, "m1")["state"], "SPLIT")
        array.do("mirror", "resync", "m1", "--disconnect", "--wait")
        wait_for(array, "m1", "SYNC")
        array.do("split", "m1")
        expect(read(array, "copy", 4), bytes(4))


def test_what_destroys_shows_its_plan_and_needs_a_yes(build):
    with with_volumes(Array(build), "db", "copy") as array:
        array.do("mirror", "create", "m1", "db", "copy", "--wait")
        array.do("split", "m1")
        write(array, "db", b"n" * MIB)
        for words in (("restore", "m1"), ("resync", "m1", "--reverse")):
            error = array.refused("mirror", *words)
            assert "db" in error["message"] and "--yes" in error["next"], error
            plan = array.run("mirror", *words, "--plan", check=0)
            assert "db" in plan.out, plan.out
            plan = array.do("mirror", *words, "--plan")
            assert plan["destroys"] and plan["bytes_overwritten"] >= MIB, plan
            code, said = on_terminal(array, "mirror", *words, answer=b"n\n")
            assert code == 1 and "[y/N]" in said, said
            expect((mirror(array, "m1")["state"], read(array, "db", 1)), ("SPLIT", b"n"))
        expect(array.run("mirror", "resync", "m1", "--plan").code, 2, "nothing is destroyed")
        array.run("mirror", "delete", "m1", "--plan", check=0)
        expect(mirror(array, "m1")["state"], "SPLIT")
        array.do("mirror", "resync", "m1", "--reverse", "--yes", "--wait")
        wait_for(array, "m1", "SYNC")
        expect(read(array, "db", MIB), bytes(MIB))


def test_one_wrong_name_or_pair_leaves_every_mirror_in_sync(build):
    with with_volumes(Array(build), "db", "db2", "log", "log2", "v5") as array:
        array.do("mirror", "create", "m1", "db", "0x0002", "--wait")
        array.do("mirror", "create", "m2", "test:log", "0x400104,0x0004", "--wait")
        error = array.refused("split", "m1", "--pairs", FIG7)
        assert "entry 2" in error["message"] and "0x421014" in error["message"], error
        pairs = array.path("pairs")
        for text in ("0x400104,0x0001\n0x400104,0x0004\n", "0x400104,0x0001\n", "db, copy\n", ""):
            with open(pairs, "w", encoding="ascii") as file:
                file.write(text)
            array.refused("split", "m2", "--pairs", pairs)
        for words in (("m1", "none"), ("m1", "m2", "none"), ("--pairs", array.path("missing"))):
            array.refused("split", *words)
        for words in ((), ("m1", "--max-hold", "11s"), ("m1", "--max-hold", "0ms"),
                      ("m1", "--max-hold", "5"), ("m1", "--access", "wo")):
            expect(array.run("split", *words).code, 2, " ".join(words))
        expect([m["state"] for m in array.do("mirror", "list")], ["SYNC", "SYNC"])
        expect(array.do("cut", "list"), [])
        text = ("# both\nPVOL ID 1  0x400104, 0x0001\nSVOL ID 1  0x400104, 0x0002\n\n"
                "PVOL ID 2  0x400104, 0x0003\nSVOL ID 2  0x400104, 0x0004\n")
        cut = array.run("--json", "split", "m1", "--pairs", "-", "--max-hold", "2s", stdin=text,
                        check=0).json
        expect(sorted(m["name"] for m in cut["members"]), ["m1", "m2"])
        expect(array.do("cut", "show", cut["cut"]), cut)
        expect([c["cut"] for c in array.do("cut", "list")], [cut["cut"]])
        array.refused("cut", "show", "99")


def lose(array, device, data, pieces):
    """Zeroes behind the array's back, where `device` holds these 64 KiB pieces of `data`."""
    with open(array.path(device), "r+b") as file:
        held = file.read()
        for piece in pieces:
            at = held.find(data[piece * 64 * KIB:(piece + 1) * 64 * KIB])
            assert at >= 0, f"piece {piece} is not in one place"
            file.seek(at)
            file.write(bytes(64 * KIB))
        file.flush()
        os.fsync(file.fileno())


def on_two_devices(array, data):
    array.start()
    for number, volume in enumerate(("db", "copy")):
        array.do("device", "add", array.path(f"disk{number}"), "--name", f"disk{number}", "--size",
                 "256M")
        array.do("volume", "create", volume, "--size", "64M", "--device", f"disk{number}")
    write(array, "db", data)
    array.do("mirror", "create", "m1", "db", "copy", "--wait")


def test_one_resync_takes_all_that_a_verify_finds(build):
    """What was lost behind the array's back at several places is equal after one round."""
    with Array(build) as array:
        data = os.urandom(16 * MIB)
        on_two_devices(array, data)
        lost = (0, 1, 77, 130, 255)
        lose(array, "disk1", data, lost)
        answer = array.run("mirror", "verify", "m1", "--wait")
        assert answer.code != 0, answer.out
        assert "5 regions (327680 bytes), the first at 0" in answer.err, answer.err
        info = mirror(array, "m1")
        expect((info["state"], info["changed_bytes_source"]), ("SUSPENDED", len(lost) * 64 * KIB))
        assert "differ in 5 regions" in info["reason"], info["reason"]
        expect(array.refused("split", "m1")["code"][:2], "e_")
        expect(array.do("mirror", "resync", "m1", "--wait")[0]["state"], "SYNC")
        expect(array.do("mirror", "verify", "m1", "--wait")[0]["state"], "SYNC", "one round")
        array.do("split", "m1")
        expect(read(array, "copy", len(data)) == data, True, "the copy")


def test_a_target_whose_end_was_cut_off_is_not_certified(build):
    """What the target cannot read differs: no split, and a resync that writes it again."""
    with Array(build) as array:
        data = os.urandom(16 * MIB)
        on_two_devices(array, data)
        with open(array.path("disk1"), "rb") as file:
            held = file.read()
        cut = held.find(data[8 * MIB:8 * MIB + 64 * KIB])
        os.truncate(array.path("disk1"), cut)
        assert array.run("mirror", "verify", "m1", "--wait").code != 0
        info = mirror(array, "m1")
        expect(info["state"], "SUSPENDED")
        assert info["changed_bytes_source"] >= 4 * MIB, info
        assert "cannot be read there" in info["reason"], info["reason"]
        expect(array.refused("split", "m1")["code"][:2], "e_")
        os.truncate(array.path("disk1"), len(held))
        expect(array.do("mirror", "resync", "m1", "--wait")[0]["state"], "SYNC")
        expect(array.do("mirror", "verify", "m1", "--wait")[0]["state"], "SYNC")
        array.do("split", "m1")
        expect(read(array, "copy", len(data)) == data, True, "the copy")


def test_groups_are_names_for_mirrors(build):
    with with_volumes(Array(build), "db", "db2", "log", "log2") as array:
        array.do("mirror", "create", "m1", "db", "db2", "--wait")
        array.do("mirror", "create", "m2", "log", "log2", "--wait")
        array.do("group", "create", "all", "m1", "m2")
        array.do("group", "create", "all", "m2", "m1")
        array.do("group", "create", "some", "m1")
        expect(array.refused("group", "create", "all", "m1")["code"], "e_exists")
        expect(array.refused("group", "create", "db", "m1")["code"], "e_exists")
        expect(array.refused("volume", "create", "all", "--size", "1M")["code"], "e_exists")
        array.refused("group", "add", "all", "none")
        array.refused("group", "show", "none")
        expect(mirror(array, "m1")["groups"], ["all", "some"])
        cut = array.do("split", "all", "some", "m1")
        expect(sorted(m["name"] for m in cut["members"]), ["m1", "m2"], "each once")
        array.do("mirror", "resync", "all", "--wait")
        array.do("group", "remove", "some", "m1")
        expect(array.do("group", "show", "some"), {"name": "some", "mirrors": []})
        array.refused("split", "some")
        array.stop()
        array.start()
        expect([(g["name"], g["mirrors"]) for g in array.do("group", "list")],
               [("all", ["m1", "m2"]), ("some", [])])
        array.do("group", "delete", "all")
        array.do("group", "add", "some", "m2")
        expect([m["state"] for m in array.do("mirror", "list")], ["SYNC", "SYNC"])


def test_names_and_states_survive_a_restart(build):
    with with_volumes(Array(build), "db", "db2", "log", "log2") as array:
        array.do("mirror", "create", "m1", "db", "db2", "--wait")
        array.do("mirror", "create", "m2", "log", "log2", "--wait")
        array.do("split", "m2", "--access", "ro")
        write(array, "log", b"l" * MIB)
        before = array.do("mirror", "list"), array.do("cut", "list")
        jobs = [j["id"] for j in array.do("job", "list")]
        array.stop()
        array.start()
        expect((array.do("mirror", "list"), array.do("cut", "list")), before)
        expect([j["id"] for j in array.do("job", "list")], jobs, "nothing is copied")


def test_a_kill_in_sync_leads_back_to_sync(build):
    with with_volumes(Array(build), "db", "copy") as array:
        array.do("mirror", "create", "m1", "db", "copy", "--wait")
        data = os.urandom(MIB)
        write(array, "db", data, 7 * MIB)
        array.kill()
        array.start()
        wait_for(array, "m1", "SYNC")
        moved = sum(j["bytes_moved"] or 0 for j in array.do("job", "list")[1:])
        assert moved <= 16 * MIB, f"{moved} bytes moved for 1 MiB that was written"
        array.do("split", "m1")
        expect(read(array, "copy", MIB, 7 * MIB) == data, True)
        array.check_log()


def slow_copy(array):
    write(array, "db", os.urandom(32 * MIB))
    return array.do("mirror", "create", "m1", "db", "copy", "--rate", "2M")["job"]


def test_the_job_of_a_mirror_obeys_its_name(build):
    with with_volumes(Array(build), "db", "copy") as array:
        number = slow_copy(array)
        job = array.do("job", "show", "m1")
        for key in ("id", "kind", "state", "progress", "bytes_done", "bytes_total", "eta_s"):
            assert key in job, key
        expect((job["id"], job["kind"], job["mirror"], job["state"]),
               (number, "copy", "m1", "running"))
        expect(array.refused("job", "wait", "m1", "--timeout", "1")["code"], "e_timeout")
        expect(array.do("job", "pause", "m1")["state"], "paused")
        assert "job resume" in array.refused("job", "wait", "m1")["next"]
        array.stop()
        array.start()
        expect(array.do("job", "show", "m1")["id"], number)
        expect(array.do("job", "show", "m1")["state"], "paused", "over a restart")
        array.do("job", "rate", "m1", "none")
        array.do("job", "resume", "m1")
        expect(array.do("job", "wait", "m1")["state"], "done")
        wait_for(array, "m1", "SYNC")
        expect(array.refused("job", "pause", "m1")["code"], "e_state")
        expect(array.refused("job", "show", "m9")["code"], "e_noname")
        expect([j["kind"] for j in array.do("job", "list")], ["copy"])


def test_a_cancelled_copy_suspends_and_a_cancelled_restore_is_confirmed(build):
    with with_volumes(Array(build), "db", "copy") as array:
        slow_copy(array)
        expect(array.do("job", "cancel", "m1")["state"], "cancelled")
        expect(mirror(array, "m1")["state"], "SUSPENDED")
        expect(array.run("status", "--check").code, 1)
        assert any("m1" in line["text"] for line in array.do("status")["lines"])
        array.do("mirror", "resync", "m1")
        array.do("job", "rate", "m1", "none")
        wait_for(array, "m1", "SYNC")
        array.do("split", "m1")
        write(array, "db", os.urandom(48 * MIB))
        array.do("mirror", "restore", "m1", "--yes")
        if array.run("job", "rate", "m1", "1M").code == 0:
            error = array.refused("job", "cancel", "m1")
            assert "--yes" in error["next"], error
            expect(array.do("job", "cancel", "m1", "--yes")["state"], "cancelled")
        wait_for(array, "m1", "SPLIT")


def test_the_copy_table_has_every_column(build):
    with with_volumes(Array(build), "db", "copy") as array:
        array.do("mirror", "create", "m1", "db", "copy", "--wait")
        array.do("split", "m1")
        write(array, "db", b"p" * 64 * KIB)
        head, row = array.run("mirror", "list", "--table", "copy", check=0).out.splitlines()
        expect(head.split(), ["MIRROR", "NAME", "PVOL", "SVOL", "TYPE", "STATUS", "MODE",
                              "POSITION", "PENDING-P", "PENDING-S", "HOLD"])
        expect(row.split(), ["1", "m1", "0x400104,0x0001", "0x400104,0x0002", "local", "SPLIT",
                             "sync", "100", "%", str(64 * KIB), "0", "-"])
        status = array.do("status")["mirrors"]
        expect((status["count"], status["states"]["SPLIT"], status["last_cut"]), (1, 1, 1))


def test_refusals_name_cause_and_next_step(build):
    with with_volumes(Array(build), "db", "copy", "small") as array:
        array.run("volume", "resize", "small", "--size", "32M", check=0)
        array.do("mirror", "create", "m1", "db", "copy", "--wait")
        before = json.dumps([array.do("mirror", "list"), array.do("volume", "list")])
        for words in (("mirror", "create", "m2", "db", "small"), ("mirror", "create", "m2", "db", "db"),
                      ("mirror", "create", "m2", "copy", "db"), ("mirror", "create", "0x1", "db", "copy"),
                      ("mirror", "create", "m2", "db", "none"), ("mirror", "show", "m2"),
                      ("mirror", "create", "m2", "other:db", "small"), ("mirror", "delete", "m2"),
                      ("mirror", "resync", "m2"), ("mirror", "restore", "m1", "--yes"),
                      ("mirror", "verify", "m2"), ("volume", "delete", "copy", "--yes"),
                      ("volume", "resize", "db", "--size", "1G"), ("job", "cancel", "m1")):
            array.refused(*words)
        expect(json.dumps([array.do("mirror", "list"), array.do("volume", "list")]), before)
        for words in (("mirror",), ("mirror", "create", "m2", "db"), ("mirror", "list", "--table", "x"),
                      ("mirror", "resync"), ("mirror", "resync", "m1", "--online"),
                      ("mirror", "resync", "m1", "--reverse", "--disconnect"),
                      ("mirror", "restore", "m1", "--then", "x"), ("group", "create", "g"),
                      ("cut", "show", "x"), ("mirror", "show", "")):
            answer = array.run("--json", *words)
            expect(answer.code, 2, " ".join(words))
            assert answer.error["message"] and answer.error["next"], answer.err
