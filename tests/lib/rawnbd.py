"""NBD spoken byte by byte, for what libnbd cannot or will not send.

Numbers and names are those of the protocol's text (doc/proto.md). Everything is big-endian. A
Raw is one connection; every receive has a deadline, so that a server that says nothing fails a
test instead of stopping it.
"""
import contextlib
import socket
import struct
import time

LIMIT_S = 60    # of one answer; builds with sanitizers are slow
AT_ONCE_S = 8   # less than the deadline of a handshake

MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC = b"NBDMAGIC", b"IHAVEOPT", 0x0003E889045565A9
REQUEST_MAGIC, SIMPLE_MAGIC, CHUNK_MAGIC = 0x25609513, 0x67446698, 0x668E33EF

FIXED_NEWSTYLE, NO_ZEROES = 1, 2

EXPORT_NAME, ABORT, LIST, PEEK_EXPORT, STARTTLS, INFO, GO, STRUCTURED_REPLY = 1, 2, 3, 4, 5, 6, 7, 8
LIST_META_CONTEXT, SET_META_CONTEXT, EXTENDED_HEADERS = 9, 10, 11

ACK, SERVER, REP_INFO, META_CONTEXT = 1, 2, 3, 4
ERR_UNSUP, ERR_POLICY, ERR_INVALID, ERR_UNKNOWN, ERR_TOO_BIG = (
    0x80000001, 0x80000002, 0x80000003, 0x80000006, 0x80000009)

INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE = 0, 1, 2, 3

READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = 0, 1, 2, 3, 4, 5, 6, 7
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO = 1, 2, 4, 8, 16

CHUNK_DONE = 1
CHUNK_NONE, CHUNK_DATA, CHUNK_HOLE, CHUNK_STATUS, CHUNK_ERROR = 0, 1, 2, 5, 0x8001

EPERM, EIO, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP = 1, 5, 22, 28, 75, 95


class Gone(Exception):
    """The server has closed the connection."""


class Broken(Exception):
    """The server said something the protocol does not allow."""


class Reply:
    """The whole answer to one request: its error and what its chunks carried."""

    def __init__(self, cookie):
        self.cookie, self.error, self.chunks = cookie, 0, []

    def data(self, offset, length):
        """What a structured READ brought; every byte must be there exactly once."""
        out, seen = bytearray(length), 0
        for kind, payload in self.chunks:
            at = struct.unpack(">Q", payload[:8])[0] - offset
            if kind == CHUNK_DATA:
                body = payload[8:]
            elif kind == CHUNK_HOLE:
                body = bytes(struct.unpack(">I", payload[8:])[0])
            else:
                raise Broken(f"chunk {kind} in a READ")
            if at < 0 or at + len(body) > length:
                raise Broken("data outside of the request")
            out[at:at + len(body)] = body
            seen += len(body)
        if seen != length:
            raise Broken(f"{seen} bytes for a READ of {length}")
        return bytes(out)

    def extents(self):
        """(length, flags) of a BLOCK_STATUS, and the context's id."""
        if [kind for kind, _ in self.chunks] != [CHUNK_STATUS]:
            raise Broken(f"chunks of a BLOCK_STATUS: {self.chunks}")
        payload = self.chunks[0][1]
        words = struct.unpack(f">{len(payload) // 4}I", payload)
        return words[0], list(zip(words[1::2], words[2::2]))


class Raw:
    """One connection: to the array's NBD socket, or `stream`, a socket that is connected."""

    def __init__(self, array, stream=None):
        self.socket = stream or socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(LIMIT_S)
        if stream is None:
            self.socket.connect(array.nbd)
        self.structured, self._cookie = False, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    # Bytes.

    def send(self, data):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Gone from error

    def recv(self, count):
        parts = bytearray()
        while len(parts) < count:
            try:
                got = self.socket.recv(min(count - len(parts), 1 << 20))
            except ConnectionResetError as error:
                raise Gone from error
            if not got:
                raise Gone(f"after {len(parts)} of {count} bytes")
            parts += got
        return bytes(parts)

    def gone(self):
        """True when the server closes without another byte; raises when it says something, and
        when it leaves that to the deadline of the handshake."""
        self.socket.settimeout(AT_ONCE_S)
        try:
            got = self.socket.recv(1)
        except (ConnectionResetError, BrokenPipeError):
            return True
        if got:
            raise Broken(f"the connection lives and says {got!r}")
        return True

    def drain(self):
        """Reads and drops what still comes, until the server closes."""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while self.socket.recv(1 << 20):
                pass

    # Handshake.

    def greet(self, flags=FIXED_NEWSTYLE | NO_ZEROES):
        """Up to the first option; the server's flags."""
        hello = self.recv(18)
        if hello[:16] != MAGIC + OPTION_MAGIC:
            raise Broken(f"greeting {hello!r}")
        self.send(struct.pack(">I", flags))
        return struct.unpack(">H", hello[16:])[0]

    def option(self, number, payload=b"", length=None):
        """Sends an option; `length`: what its head claims."""
        self.send(option_head(number, len(payload) if length is None else length) + payload)

    def option_reply(self, number):
        magic, option, kind, length = struct.unpack(">QIII", self.recv(20))
        if magic != OPTION_REPLY_MAGIC or option != number:
            raise Broken(f"reply {magic:#x} to option {option}, asked {number}")
        return kind, self.recv(length)

    def ask(self, number, payload=b""):
        """Sends an option; all its replies, the last one (ACK or an error) included."""
        self.option(number, payload)
        replies = []
        while not replies or SERVER <= replies[-1][0] <= META_CONTEXT:
            replies.append(self.option_reply(number))
        if number == STRUCTURED_REPLY and replies[-1][0] == ACK:
            self.structured = True
        return replies

    def verdict(self, number, payload=b""):
        """What kind of reply ends an option."""
        return self.ask(number, payload)[-1][0]

    def go(self, name="vol", infos=(), option=GO):
        """(size, flags, infos) of INFO or GO: infos by number."""
        replies = self.ask(option, go_payload(name, infos))
        if replies[-1] != (ACK, b""):
            raise Broken(f"GO: {replies}")
        found = {struct.unpack(">H", body[:2])[0]: body[2:] for _, body in replies[:-1]}
        if len(found) != len(replies) - 1:
            raise Broken(f"an info came twice: {replies}")
        size, flags = struct.unpack(">QH", found[INFO_EXPORT])
        return size, flags, found

    # Transmission.

    def request(self, command, offset=0, length=0, flags=0, payload=b""):
        """Sends a request and does not wait; its cookie."""
        self._cookie += 1
        cookie = 0xD0D0_0000_0000_0000 + self._cookie
        self.send(request_bytes(command, cookie, offset, length, flags) + payload)
        return cookie

    def reply(self, reads=None):
        """The next whole reply. `reads`: lengths by cookie of READs, for simple replies."""
        answer = None
        while True:
            magic = struct.unpack(">I", self.recv(4))[0]
            if magic == SIMPLE_MAGIC:
                error, cookie = struct.unpack(">IQ", self.recv(12))
                if answer is not None:
                    raise Broken("a simple reply inside of a structured one")
                answer = Reply(cookie)
                answer.error = error
                if error == 0 and (reads or {}).get(cookie):
                    if self.structured:
                        raise Broken("a simple reply to a READ, structured replies were negotiated")
                    answer.chunks.append((None, self.recv(reads[cookie])))
                return answer
            if magic != CHUNK_MAGIC or not self.structured:
                raise Broken(f"reply magic {magic:#x}")
            flags, kind, cookie, length = struct.unpack(">HHQI", self.recv(16))
            payload = self.recv(length)
            if answer is not None and answer.cookie != cookie:
                raise Broken("chunks of two replies are mixed: this reader takes one at a time")
            answer = answer or Reply(cookie)
            if kind == CHUNK_ERROR:
                answer.error, text = struct.unpack(">IH", payload[:6])
                if text != length - 6:
                    raise Broken("length of an error's text")
            elif kind != CHUNK_NONE:
                answer.chunks.append((kind, payload))
            if flags & CHUNK_DONE:
                return answer

    def call(self, command, offset=0, length=0, flags=0, payload=b""):
        """A request and its reply."""
        cookie = self.request(command, offset, length, flags, payload)
        answer = self.reply({cookie: length} if command == READ else None)
        if answer.cookie != cookie:
            raise Broken(f"cookie {answer.cookie:#x}, sent {cookie:#x}")
        return answer

    def error_of(self, command, offset=0, length=0, flags=0, payload=b""):
        return self.call(command, offset, length, flags, payload).error

    def read(self, offset, length, flags=0):
        answer = self.call(READ, offset, length, flags)
        if answer.error:
            raise Broken(f"READ: error {answer.error}")
        return answer.data(offset, length) if self.structured else answer.chunks[0][1]

    def write(self, offset, data, flags=0):
        error = self.error_of(WRITE, offset, len(data), flags, data)
        if error:
            raise Broken(f"WRITE: error {error}")


def option_head(number, length):
    return OPTION_MAGIC + struct.pack(">II", number, length)


def request_bytes(command, cookie=0, offset=0, length=0, flags=0, magic=REQUEST_MAGIC):
    """The head of a request."""
    return struct.pack(">IHHQQI", magic, flags, command, cookie, offset, length)


def name_bytes(name):
    return name if isinstance(name, bytes) else name.encode()


def go_payload(name, infos=()):
    """Payload of INFO and GO."""
    name = name_bytes(name)
    return struct.pack(">I", len(name)) + name + struct.pack(f">H{len(infos)}H", len(infos), *infos)


def meta_payload(name, queries=()):
    """Payload of LIST_META_CONTEXT and SET_META_CONTEXT."""
    name = name_bytes(name)
    out = struct.pack(">I", len(name)) + name + struct.pack(">I", len(queries))
    for query in map(name_bytes, queries):
        out += struct.pack(">I", len(query)) + query
    return out


def ready(array, volume="vol", structured=True, allocation=False, stream=None):
    """A connection in the transmission phase."""
    raw = Raw(array, stream)
    raw.greet()
    if structured:
        raw.ask(STRUCTURED_REPLY)
    if allocation:
        replies = raw.ask(SET_META_CONTEXT, meta_payload(volume, ["base:allocation"]))
        if len(replies) != 2:
            raise Broken(f"SET_META_CONTEXT: {replies}")
    raw.go(volume)
    return raw


def until(condition, what, limit=LIMIT_S):
    """Waits until `condition()` is true."""
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {limit} s: {what}")
        time.sleep(0.02)
