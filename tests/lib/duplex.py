"""A real array for integration tests: starts duplexd in a folder of its own, runs `duplex`.

Every Array stops what it started, by process id, when its `with` block ends.
"""
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
START_LIMIT_S = 60
COMMAND_LIMIT_S = 120


class Refused(Exception):
    """A command of the array ended with another exit code than the test expects."""


class Build:
    """Where the binaries are."""

    def __init__(self, folder):
        self.duplexd = os.path.join(os.path.abspath(folder), "bin", "duplexd")
        self.duplex = os.path.join(os.path.abspath(folder), "bin", "duplex")


class Answer:
    """What a command printed and how it ended."""

    def __init__(self, process):
        self.code, self.out, self.err = process.returncode, process.stdout, process.stderr

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def error(self):
        """The error a command with --json printed on stderr."""
        return json.loads(self.err)["error"]


class Array:
    """One array in a temporary folder; `root` keeps devices, state and sockets."""

    def __init__(self, build, reactors=2, engine="auto", root=None, name="test", extra=()):
        self.build, self.reactors, self.engine, self.name = build, reactors, engine, name
        self.extra = list(extra)
        self._own_root = root is None
        self.root = root or tempfile.mkdtemp(prefix="dx")
        self.state = os.path.join(self.root, "state")
        self.nbd = os.path.join(self.root, "nbd.sock")
        self.api = os.path.join(self.root, "api.sock")
        self.log = os.path.join(self.root, "duplexd.log")
        self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            self.kill()
        if self._own_root:
            shutil.rmtree(self.root, ignore_errors=True)

    # The daemon.

    def command(self, *more):
        return [self.build.duplexd, "--name", self.name, "--id", "0x400104", "--state", self.state,
                "--nbd", "unix:" + self.nbd, "--api", "unix:" + self.api,
                "--reactors", str(self.reactors), "--engine", self.engine, *self.extra, *more]

    def start(self, *more, **popen):
        """Starts duplexd and waits until it serves."""
        assert self.process is None
        log = open(self.log, "ab")
        self.process = subprocess.Popen(self.command(*more), stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=log, **popen)
        log.close()
        line = self._first_line()
        if line != b"ready\n":
            self.kill()
            raise Refused("duplexd does not start: " + self.log_text()[-2000:])
        return self

    def _first_line(self):
        os.set_blocking(self.process.stdout.fileno(), False)
        end, text = time.monotonic() + START_LIMIT_S, b""
        while time.monotonic() < end and not text.endswith(b"\n"):
            text += self.process.stdout.read() or b""
            if self.process.poll() is not None:
                text += self.process.stdout.read() or b""
                break
            time.sleep(0.01)
        return text

    def refuse_start(self, *more):
        """Starts duplexd, which must not come up; its exit code and what it said."""
        done = subprocess.run(self.command(*more), stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=START_LIMIT_S, check=False)
        return done.returncode, done.stderr

    def stop(self):
        """A clean stop; it must end well."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=START_LIMIT_S)
        self._forget()
        if code != 0:
            raise Refused(f"duplexd ended with {code}: {self.log_text()[-2000:]}")

    def kill(self):
        """kill -9."""
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        self._forget()

    def _forget(self):
        self.process.stdout.close()
        self.process = None

    def log_text(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def check_log(self):
        """No sanitizer report and no assertion."""
        found = re.search(r"(ERROR: \w+Sanitizer|runtime error:|WARNING: ThreadSanitizer|ASSERT.*)",
                          self.log_text())
        if found:
            raise Refused(self.log_text()[found.start():found.start() + 4000])

    # Commands.

    def run(self, *words, check=None, limit=COMMAND_LIMIT_S, stdin=None):
        """Runs `duplex WORDS`; `check`: the exit code it must have."""
        answer = Answer(subprocess.run(
            [self.build.duplex, "--api", "unix:" + self.api, *map(str, words)], timeout=limit,
            capture_output=True, text=True, check=False, input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL))
        if check is not None and answer.code != check:
            raise Refused(f"duplex {' '.join(map(str, words))}: exit {answer.code}, expected "
                          f"{check}\n{answer.out}{answer.err}")
        return answer

    def do(self, *words, limit=COMMAND_LIMIT_S):
        """A command that must succeed; its JSON."""
        return self.run("--json", *words, check=0, limit=limit).json

    def refused(self, *words):
        """A command that must be refused with cause and next step; its error."""
        error = self.run("--json", *words, check=1).error
        if not error["message"] or not error["next"] or not error["code"].startswith("e_"):
            raise Refused(f"duplex {' '.join(map(str, words))}: refusal without next step: {error}")
        return error

    def path(self, name):
        return os.path.join(self.root, name)

    def uri(self, volume):
        return f"nbd+unix:///{volume}?socket={self.nbd}"

    def with_volume(self, name="vol", size="64M", device_size="512M"):
        """Started, with one device and one volume."""
        self.start()
        self.do("device", "add", self.path("disk0"), "--name", "disk0", "--size", device_size)
        self.do("volume", "create", name, "--size", size)
        return self


def connect(array, volume="vol", **settings):
    """A libnbd handle; settings become set_* calls before the connection."""
    import nbd  # pylint: disable=import-outside-toplevel
    handle = nbd.NBD()
    for key, value in settings.items():
        getattr(handle, "set_" + key)(value)
    handle.connect_uri(array.uri(volume))
    return handle


def sh(*words, limit=COMMAND_LIMIT_S, check=True, **more):
    """Runs a client; its output."""
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, errors="replace",
                          timeout=limit, check=False, stdin=subprocess.DEVNULL, **more)
    if check and done.returncode != 0:
        raise Refused(f"{' '.join(map(str, words))}: exit {done.returncode}\n"
                      f"{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done


class Skip(Exception):
    """The test cannot run here; the text names what is missing."""


def needs(*programs):
    missing = [p for p in programs if shutil.which(p) is None]
    if missing:
        raise Skip("missing: " + " ".join(missing))
