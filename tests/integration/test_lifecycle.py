"""The array as its administrator sees it: verbs, refusals, restarts."""
import json
import os
import pty
import socket
import stat
import subprocess
import time
import urllib.parse

from duplex import GIB, KIB, MIB, Array, connect, needs, sh
from marks import every_engine


def expect(got, wanted, what=""):
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r}, wanted {wanted!r}")


@every_engine
def test_first_tour(build, **how):
    """Device, volume, data, restart, delete: the order of the README."""
    with Array(build, **how) as array:
        array.with_volume("db", "64M")
        expect([(v["name"], v["size"], v["allocated"]) for v in array.do("volume", "list")],
               [("db", 64 * MIB, 0)])
        data = os.urandom(5 * MIB)
        handle = connect(array, "db")
        handle.pwrite(data, 3 * MIB + 1)
        handle.flush()
        handle.shutdown()
        array.stop()
        array.start()
        handle = connect(array, "db")
        expect(handle.pread(len(data), 3 * MIB + 1) == data, True, "data after a restart")
        expect(array.do("volume", "show", "db")["allocated"], 12 * MIB)
        handle.shutdown()
        array.run("volume", "delete", "db", "--yes", check=0)
        expect(array.do("volume", "list"), [])
        array.stop()
        array.check_log()


def test_the_contract_of_volume_list(build):
    with Array(build) as array:
        array.with_volume()
        volume = array.do("volume", "list")[0]
        for key in ("name", "id", "size", "allocated", "backing", "uri"):
            assert key in volume, key
        expect(volume["uri"], array.uri("vol"))
        expect(sh("nbdinfo", "--size", volume["uri"]).stdout.strip(), str(64 * MIB))


def test_creating_the_same_again_is_success_and_another_is_refused(build):
    with Array(build) as array:
        array.with_volume()
        before = array.do("volume", "list")
        array.do("volume", "create", "vol", "--size", "64M")
        expect(array.do("volume", "list"), before)
        expect(array.refused("volume", "create", "vol", "--size", "65M")["code"], "e_exists")
        expect(array.refused("volume", "create", "other", "--size", "1G", "--id",
                             before[0]["id"])["code"], "e_exists")


def test_adding_the_same_device_again_is_success(build):
    with Array(build) as array:
        array.with_volume()
        before = array.do("device", "list")
        array.do("device", "add", array.path("disk0"))
        array.do("device", "add", array.path("disk0"), "--name", "disk0")
        expect([d["name"] for d in array.do("device", "list")], [d["name"] for d in before])
        array.refused("device", "add", array.path("disk0"), "--name", "another")


def test_a_device_with_a_file_system_or_a_foreign_label_is_refused(build):
    needs("mkfs.ext4")
    with Array(build) as array, Array(build, name="second") as second:
        array.start()
        disk = array.path("fs")
        with open(disk, "wb") as file:
            file.truncate(256 * MIB)
        sh("mkfs.ext4", "-q", disk)
        with open(disk, "rb") as file:
            before = file.read(4 * MIB)
        error = array.refused("device", "add", disk)
        assert "ext4" in error["message"], error
        assert "--overwrite" in error["next"], error
        with open(disk, "rb") as file:
            assert file.read(4 * MIB) == before, "a refusal changed the disk"
        array.do("device", "add", disk, "--overwrite", "--yes")
        array.stop()
        second.start()
        error = second.refused("device", "add", disk)
        assert "test" in error["message"], error


def on_terminal(array, *words, answer):
    """Runs `duplex WORDS` with a terminal as its input, types `answer`; exit code and output."""
    keyboard, screen = pty.openpty()
    try:
        with subprocess.Popen([array.build.duplex, "--api", "unix:" + array.api, *words],
                              stdin=screen, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT) as process:
            os.write(keyboard, answer)
            said = process.stdout.read().decode()
        return process.returncode, said
    finally:
        os.close(keyboard)
        os.close(screen)


def test_overwriting_a_device_shows_what_goes_and_asks(build):
    with Array(build) as array:
        array.start()
        disk = array.path("old")
        data = b"somebody's" * KIB
        with open(disk, "wb") as file:
            file.write(data)
            file.truncate(64 * MIB)

        def untouched():
            with open(disk, "rb") as file:
                return file.read(len(data)) == data and not array.do("device", "list")

        error = array.refused("device", "add", disk, "--overwrite")
        assert "carries data" in error["message"] and "destroyed" in error["message"], error
        expect(error["next"], f"to destroy it: duplex device add {disk} --overwrite --yes")
        assert untouched(), "a refusal changed something"
        for answer in (b"n\n", b"\n", b"\x04"):
            code, said = on_terminal(array, "device", "add", disk, "--overwrite", answer=answer)
            expect(code, 1, said)
            assert "carries data" in said and "[y/N]" in said, said
            assert untouched(), "a no changed something"
        expect(array.run("device", "add", disk, "--overwrite", "--plan").code, 2)
        assert untouched(), "--plan changed something"
        code, said = on_terminal(array, "device", "add", disk, "--overwrite", answer=b"y\n")
        expect(code, 0, said)
        expect([d["path"] for d in array.do("device", "list")], [disk])
        clean = array.path("clean")
        with open(clean, "wb") as file:
            file.truncate(64 * MIB)
        array.do("device", "add", clean, "--overwrite")
        expect(len(array.do("device", "list")), 2, "where nothing is lost nothing is asked")


def paused_import(array, volume):
    """The number of an import that is paused half way; a larger one when it was done before that."""
    for size in (32 * MIB, 256 * MIB, 1024 * MIB):
        with open(array.path("raw"), "wb") as file:
            for _ in range(size // MIB):
                file.write(os.urandom(MIB))
        job = array.do("volume", "import", volume, array.path("raw"), "--overwrite")["id"]
        if array.run("job", "pause", job).code == 0:
            return job
        expect(array.do("job", "wait", job)["state"], "done")
    raise AssertionError("an import of 1 GiB is done before it can be paused")


def test_waiting_for_a_paused_job_says_so(build):
    with Array(build) as array:
        array.with_volume(size="1G", device_size="2G")
        job = paused_import(array, "vol")
        error = array.refused("job", "wait", job)
        expect((error["message"], error["next"]),
               (f"job {job} is paused", f"duplex job resume {job}"))
        array.do("job", "resume", job)
        expect(array.do("job", "wait", job)["state"], "done")
        for verb in ("pause", "resume", "cancel"):
            line = next(line for line in array.run("job", "--help", check=0).out.splitlines()
                        if line.split()[:1] == [verb])
            assert len(line.split()) > 3, line


def test_the_last_device_that_is_there_stays_while_there_are_volumes(build):
    with Array(build) as array:
        array.with_volume()
        error = array.refused("device", "remove", "disk0", "--yes")
        assert "last" in error["message"] and "volume" in error["next"], error
        array.do("device", "add", array.path("disk1"), "--size", "512M")
        array.stop()
        os.rename(array.path("disk1"), array.path("away"))
        array.start()
        expect([d["state"] for d in array.do("device", "list")], ["online", "absent"])
        error = array.refused("device", "remove", "disk0", "--yes")
        assert "last" in error["message"] and "volume" in error["next"], error


def test_refusals_name_cause_and_next_step_and_change_nothing(build):
    with Array(build) as array:
        array.with_volume()
        before = json.dumps([array.do("volume", "list"), array.do("device", "list")])
        for words in (("volume", "create", "0xbad", "--size", "1G"),
                      ("volume", "create", "a/b", "--size", "1G"),
                      ("volume", "create", "x" * 64, "--size", "1G"),
                      ("volume", "create", "v", "--size", "0"),
                      ("volume", "create", "v", "--size", "1G", "--device", "nowhere"),
                      ("volume", "create", "v", "--size", "1G", "--id", "0x10000"),
                      ("volume", "create", "v", "--size", "100G", "--thick"),
                      ("volume", "show", "nobody"),
                      ("volume", "delete", "nobody", "--yes"),
                      ("volume", "resize", "nobody", "--size", "1G"),
                      ("volume", "import", "vol", array.path("missing")),
                      ("device", "add", array.path("missing")),
                      ("device", "add", array.root),
                      ("device", "add", array.path("tiny"), "--size", "1K"),
                      ("device", "show", "nothing"),
                      ("device", "remove", "nothing", "--yes"),
                      ("job", "show", "77"), ("job", "cancel", "77")):
            array.refused(*words)
        expect(json.dumps([array.do("volume", "list"), array.do("device", "list")]), before)
        expect(os.path.exists(array.path("tiny")), False, "a refused device file was left behind")


def test_usage_errors_end_with_2_and_an_unreachable_array_with_3(build):
    with Array(build) as array:
        array.start()
        for words, named in (
                ((), "after 'duplex'"), (("volume",), "after 'duplex volume'"),
                (("volume", "create", "x"), "--size"), (("volume", "list", "more"), "more"),
                (("nonsense",), "'duplex nonsense'"), (("--what",), "--what"),
                (("volume", "nonsense"), "'duplex volume nonsense'"),
                (("volume", "show", ""), "name"), (("device", "show", ""), "name"),
                (("job", "show", "-1"), "'-1'"), (("job", "wait", "1", "--timeout", "-1"), "'-1'"),
                (("volume", "create", "v", "--size", "ten"), "'ten'"),
                (("volume", "create", "v", "--size", "17E"), "'17E'"),
                (("volume", "create", "v", "--size", ""), "''"),
                (("volume", "resize", "v", "--size", "-1G"), "'-1G'"),
                (("device", "add", array.path("d"), "--size", "1.5.2G"), "'1.5.2G'"),
                (("job", "rate", "1", "fast"), "'fast'"),
                (("event", "list", "--since", ""), "''"),
                (("event", "list", "--since", "yesterday"), "'yesterday'"),
                (("event", "list", "--since", "2026-02-30"), "'2026-02-30'"),
                (("event", "list", "--since", "2026-02-03T24:00"), "'2026-02-03T24:00'"),
                (("event", "list", "--since", "2026-02-03T10:0"), "'2026-02-03T10:0'")):
            answer = array.run("--json", *words)
            expect(answer.code, 2, " ".join(words))
            assert named in answer.error["message"] and answer.error["next"], answer.err
            if "--size" in words[1:] and len(words) > 3:
                assert "1024" in answer.error["next"], answer.err
        expect(os.path.exists(array.path("d")), False, "a device file was made")
        for since in ("2026-02-28", "2026-02-28T10", "2026-02-28T10:00:00Z", "2024-02-29T10:00Z"):
            array.run("event", "list", "--since", since, check=0)
        array.stop()
        for words in (("status",), ("volume", "list"), ("event", "list")):
            answer = array.run("--json", *words)
            expect(answer.code, 3)
            expect(answer.error["code"], "e_connection")


def test_deleting_data_needs_yes_and_shows_what_goes(build):
    with Array(build) as array:
        array.with_volume()
        handle = connect(array)
        handle.pwrite(b"x" * MIB, 0)
        handle.shutdown()
        error = array.refused("volume", "delete", "vol")
        assert "4" in error["message"] and "--yes" in error["next"], error
        plan = array.run("--plan", "volume", "delete", "vol", check=0)
        assert "vol" in plan.out and "4" in plan.out, plan.out
        expect(len(array.do("volume", "list")), 1)
        handle = connect(array)
        error = array.refused("volume", "delete", "vol", "--yes")
        assert "--disconnect" in error["next"], error
        array.run("volume", "delete", "vol", "--yes", "--disconnect", check=0)
        expect(array.do("volume", "list"), [])


def test_a_volume_grows_and_shrinks_online(build):
    with Array(build) as array:
        array.with_volume("vol", "64M")
        handle = connect(array)
        handle.pwrite(b"end!" * KIB, 60 * MIB)
        array.run("volume", "resize", "vol", "--size", "128M", check=0)
        expect(connect(array).get_size(), 128 * MIB)
        array.refused("volume", "resize", "vol", "--size", "32M")
        array.run("volume", "resize", "vol", "--size", "32M", "--discard", "--yes", check=0)
        try:
            handle.pread(512, 60 * MIB)
            raise AssertionError("a read beyond the new end succeeded")
        except Exception as error:  # pylint: disable=broad-except
            assert "Invalid" in str(error) or "EINVAL" in str(error), error
        array.run("volume", "resize", "vol", "--size", "64M", check=0)
        expect(connect(array).pread(4 * KIB, 60 * MIB), bytes(4 * KIB), "what was cut off")


def test_the_map_of_a_volume_and_of_its_device_are_inverse(build):
    with Array(build) as array:
        array.with_volume("a", "64M")
        array.do("volume", "create", "b", "--size", "64M", "--backing", "PD9")
        for name, places in (("a", (0, 5, 9)), ("b", (3, 4, 15))):
            handle = connect(array, name)
            for le in places:
                handle.pwrite(b"\1" * 512, le * 4 * MIB + 1000)
            handle.shutdown()
            runs = [r for r in array.do("volume", "extents", name) if r["device"]]
            mapped = {r["le"] + i: r["pe"] + i for r in runs for i in range(r["count"])}
            expect(sorted(mapped), sorted(places))
            device = array.do("device", "show", "disk0")
            inverse = {r["le"] + i: r["pe"] + i for r in device["map"] if r.get("volume") == name
                       for i in range(r["count"])}
            expect(inverse, mapped, f"table 410 of disk0 for {name}")
        names = {v["name"]: v["backing"] for v in array.do("volume", "list")}
        expect(names["b"], "PD9")


def test_trim_gives_space_back_and_zero_writes_take_none(build):
    with Array(build) as array:
        array.with_volume()
        handle = connect(array)
        handle.zero(64 * MIB, 0)
        handle.pwrite(bytes(8 * MIB), 0)
        expect(array.do("volume", "show", "vol")["allocated"], 0, "after zeroes")
        handle.pwrite(b"\1" * 16 * MIB, 0)
        expect(array.do("volume", "show", "vol")["allocated"], 16 * MIB)
        handle.trim(8 * MIB, 4 * MIB)
        expect(array.do("volume", "show", "vol")["allocated"], 8 * MIB, "after TRIM")
        expect(handle.pread(8 * MIB, 4 * MIB), bytes(8 * MIB))


def test_a_second_daemon_on_one_state_directory_is_refused(build):
    with Array(build) as array:
        array.with_volume()
        code, said = array.refuse_start()
        expect(code, 1)
        assert "in use" in said and "next:" in said, said
        array.do("volume", "list")


def test_a_newer_format_of_the_store_is_refused_unchanged(build):
    with Array(build) as array:
        array.with_volume()
        array.stop()
        files = [f for f in os.listdir(array.state) if f.endswith(".db")]
        expect(len(files), 1)
        path = os.path.join(array.state, files[0])
        with open(path, "r+b") as file:  # user_version of the SQLite header
            file.seek(60)
            file.write((1000).to_bytes(4, "big"))
        with open(path, "rb") as file:
            before = file.read()
        code, said = array.refuse_start()
        expect(code, 1)
        assert "next:" in said, said
        with open(path, "rb") as file:
            assert file.read() == before, "a refused start changed the store"


def test_unknown_settings_are_refused_by_name(build):
    with Array(build) as array:
        config = array.path("duplex.toml")
        with open(config, "w", encoding="utf-8") as file:
            file.write(f'name = "a"\nid = "0x400104"\nstate = "{array.state}"\nreactor = 2\n')
        done = sh(build.duplexd, "--config", config, check=False)
        expect(done.returncode, 2)
        assert "reactor" in done.stderr and "reactors" in done.stderr, done.stderr
        expect(os.path.exists(array.state), False, "a refused start made a state directory")


def test_a_daemon_that_makes_no_sense_ends_with_2_and_touches_nothing(build):
    with Array(build) as array:
        alone = [build.duplexd, "--name", "a", "--id", "0x1", "--state", array.state]
        reachable = alone + ["--api", "unix:" + array.api]
        for words, cause, way_on in (
                (alone, "could reach", "--nbd"),
                (reachable + ["--device", array.path("d")], "--device", "--rebuild"),
                (reachable + ["--accept-missing"], "--accept-missing", "--rebuild"),
                (reachable + ["--rebuild"], "--rebuild", "--device PATH"),
                (reachable + ["--config", array.path("missing")], "No such file", "--config"),
                (reachable + ["--nbd", "tcp:[::1"], "'tcp:[::1'", "tcp:[::1]:10809")):
            done = sh(*words, check=False, limit=20)
            expect(done.returncode, 2, " ".join(words))
            refusal, following = done.stderr.strip().splitlines()
            assert cause in refusal and "line" not in refusal, done.stderr
            assert following.startswith("next: ") and way_on in following, done.stderr
            expect(os.path.exists(array.state), False, "a refused start made a state directory")


def test_tcp_that_is_not_loopback_needs_insecure(build):
    with Array(build, extra=("--nbd", "tcp:0.0.0.0:0")) as array:
        code, said = array.refuse_start()
        expect(code, 1)
        assert "--insecure" in said, said


def test_a_lost_state_directory_is_rebuilt_from_the_devices(build):
    with Array(build) as array:
        array.with_volume("db", "256M", device_size="512M")
        array.do("device", "add", array.path("disk1"), "--size", "512M")
        data = os.urandom(32 * MIB)
        handle = connect(array, "db")
        handle.pwrite(data, 20 * MIB)
        handle.flush()
        volumes = array.do("volume", "list")
        array.kill()
        os.rename(array.state, array.state + ".lost")
        array.start("--rebuild", "--device", array.path("disk0"))
        expect([(v["name"], v["size"], v["id"]) for v in array.do("volume", "list")],
               [(v["name"], v["size"], v["id"]) for v in volumes])
        expect(connect(array, "db").pread(len(data), 20 * MIB) == data, True, "data")
        array.stop()
        code, said = array.refuse_start("--rebuild", "--device", array.path("disk0"))
        expect(code, 1)
        assert "next:" in said, said
        os.rename(array.state, array.state + ".new")
        os.rename(array.state + ".lost", array.state)
        code, said = array.refuse_start()
        expect(code, 1, "the old state directory must not serve again")


def test_a_damaged_volume_shows_the_way_out_and_nothing_to_paste(build):
    with Array(build) as array:
        array.with_volume("db", "16M")
        array.do("device", "add", array.path("disk1"), "--size", "512M")
        array.do("volume", "create", "logs", "--size", "16M", "--device", "disk1")
        connect(array, "db").pwrite(b"\1" * 16 * MIB, 0)
        connect(array, "logs").pwrite(b"\1" * MIB, 0)
        array.stop()
        os.rename(array.state, array.state + ".lost")
        os.unlink(array.path("disk1"))
        code, said = array.refuse_start("--rebuild", "--device", array.path("disk0"))
        expect(code, 1)
        assert "disk1" in said and "--accept-missing" in said, said
        array.start("--rebuild", "--device", array.path("disk0"), "--accept-missing")
        text = array.run("volume", "show", "logs", check=0).out
        assert "DAMAGED" in text and "next: duplex volume delete logs --yes" in text, text
        for line in ("uri ", "nbd-client", "nbdtab", "qemu", "libvirt"):
            assert line not in text, text
        rows = array.run("volume", "list", check=0).out.splitlines()[1:]
        expect([(row.split()[0], row.split()[-1]) for row in rows],
               [("db", array.uri("db")), ("logs", "(damaged)")])
        array.run("volume", "delete", "logs", "--yes", check=0)
        expect(array.run("status", "--check").out.strip(), "ok")


def test_a_device_that_has_moved_is_taken_back_when_its_path_leads_there(build):
    with Array(build) as array:
        array.with_volume()
        connect(array).pwrite(b"moved" * KIB, 0)
        array.stop()
        os.rename(array.path("disk0"), array.path("elsewhere"))
        array.start()
        expect([d["state"] for d in array.do("device", "list")], ["absent"])
        os.symlink(array.path("elsewhere"), array.path("disk0"))
        end = time.monotonic() + 30
        while array.do("device", "list")[0]["state"] != "online":
            assert time.monotonic() < end, "the device is not taken back"
            time.sleep(0.1)
        expect(connect(array).pread(5 * KIB, 0), b"moved" * KIB)


def test_events_tell_of_80_90_and_95_percent_and_status_shows_the_worst_first(build):
    with Array(build) as array:
        array.with_volume("vol", "256M", device_size="256M")
        total = array.do("pool", "show")["total"]
        handle = connect(array)
        seen = set()
        for le in range(total // (4 * MIB)):
            handle.pwrite(b"\1" * 512, le * 4 * MIB)
            used = array.do("pool", "show")["used"] * 100 // total
            codes = [e["text"] for e in array.do("event", "list") if "full" in e["text"]]
            for step in (80, 90, 95):
                if used >= step:
                    assert any(f"{step}" in text for text in codes), (used, codes)
                    seen.add(step)
        expect(seen, {80, 90, 95})
        answer = array.run("status", "--check")
        expect(answer.code, 1)
        assert "full" in answer.out.splitlines()[0], answer.out
        assert len(answer.out.splitlines()) <= 10, answer.out
        try:
            handle.pwrite(b"\1" * 512, total)
            raise AssertionError("a write without space succeeded")
        except Exception as error:  # pylint: disable=broad-except
            assert "ENOSPC" in repr(error) or "space" in str(error), error
        expect(handle.pread(512, 0), b"\1" * 512, "a full pool goes on reading")
        handle.pwrite(b"\2" * 512, 0)
        handle.trim(4 * MIB, 4 * MIB)
        array.do("pool", "show")
        handle.pwrite(b"\3" * 512, total)


def test_status_of_a_healthy_array_is_good(build):
    with Array(build) as array:
        array.with_volume()
        answer = array.run("status", "--check")
        expect(answer.code, 0, answer.out + answer.err)
        assert len(answer.out.splitlines()) <= 10
        assert "disk0" in array.run("support", check=0).out
        metrics = sh("curl", "-sf", "--unix-socket", array.api, "http://x/metrics").stdout
        assert 'duplex_volume_clients{volume="vol"} 0' in metrics, metrics


def test_volume_show_prints_lines_that_clients_take(build):
    with Array(build) as array:
        array.with_volume()
        text = array.run("volume", "show", "vol", check=0).out
        for client in ("nbd-client", "nbdtab", "qemu", "libvirt"):
            assert client in text, text
        uri = next(word for line in text.splitlines() for word in line.split()
                   if word.startswith("nbd+unix:"))
        expect(urllib.parse.urlparse(uri).path, "/vol")
        sh("nbdinfo", uri)


def test_import_takes_raw_files_and_images(build):
    needs("qemu-img")
    with Array(build) as array:
        array.with_volume("raw", "64M")
        array.do("volume", "create", "image", "--size", "64M")
        raw, image = array.path("in.raw"), array.path("in.qcow2")
        data = os.urandom(9 * MIB)
        with open(raw, "wb") as file:
            file.write(data)
            file.truncate(40 * MIB)
        sh("qemu-img", "convert", "-O", "qcow2", raw, image)
        job = array.do("volume", "import", "raw", raw, "--wait")
        expect(job["state"], "done")
        array.run("volume", "import", "image", image, check=0)
        for name in ("raw", "image"):
            handle = connect(array, name)
            expect(handle.pread(len(data), 0) == data, True, name)
            expect(handle.pread(MIB, 20 * MIB), bytes(MIB))
            expect(array.do("volume", "show", name)["allocated"], 12 * MIB)
            handle.shutdown()
        array.refused("volume", "import", "raw", raw)
        array.do("volume", "import", "raw", raw, "--overwrite", "--yes", "--wait")
        expect([j["state"] for j in array.do("job", "list")], ["done", "done"])


def test_a_socket_left_by_a_killed_daemon_is_replaced_and_a_file_is_not(build):
    with Array(build) as array:
        array.with_volume()
        array.kill()
        expect(stat.S_ISSOCK(os.stat(array.nbd).st_mode), True)
        array.start()
        array.stop()
        with open(array.nbd, "w", encoding="utf-8") as file:
            file.write("precious")
        code, _ = array.refuse_start()
        expect(code, 1)
        with open(array.nbd, encoding="utf-8") as file:
            expect(file.read(), "precious")


def test_listen_fds_are_served(build):
    with Array(build) as array:
        array.with_volume()
        array.stop()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(array.path("given.sock"))
        listener.listen(16)

        def give():
            os.dup2(listener.fileno(), 3)
            os.environ["LISTEN_FDS"], os.environ["LISTEN_PID"] = "1", str(os.getpid())

        array.start(preexec_fn=give, pass_fds=(3, listener.fileno()))
        sh("nbdinfo", f"nbd+unix:///vol?socket={array.path('given.sock')}")
        listener.close()


def test_a_big_thin_volume_costs_nothing(build):
    with Array(build) as array:
        array.with_volume("big", "16T")
        handle = connect(array, "big")
        handle.pwrite(b"far", 16 * 1024 * GIB - 3)
        expect(handle.pread(3, 16 * 1024 * GIB - 3), b"far")
        expect(array.do("volume", "show", "big")["allocated"], 4 * MIB)
