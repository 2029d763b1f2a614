"""A KMP receiver: takes what each track sends, acknowledges it, and counts pictures.

Written from the protocol's description, as the smallest receiver that Kaltura's senders work with: one connection for each
track, frames counted from the number that it names, those that were there before left out, pictures from a keyframe on,
nothing sent but acknowledgements.
"""

import contextlib
import dataclasses
import socket
import struct
import threading
import time

from hwtests.case import check
from hwtests.sink import Sink

# What each packet begins with: kind, bytes of the header with this, bytes of what follows, reserved. Little-endian.
HEAD = struct.Struct("<4sIII")
HEADER_MAX, DATA_MAX = 1 << 16, 16 << 20
# What is read of each header, behind the head.
CONNECT, MEDIA, FRAME = struct.Struct("<32s32sQ"), struct.Struct("<III"), struct.Struct("<qqI")
KEYFRAME = 1
VIDEO = 0
# A connection that is silent for so long is given up, seconds.
SILENT = 20.0
# Frames are acknowledged so often, seconds: so there is always something that must be sent again after a cut.
ACKNOWLEDGE = 1.0
# A track that goes back by more frames is a new one.
BACK_MAX = 2000


class Refused(Exception):
    """Not KMP, or not to be taken; why."""


@dataclasses.dataclass
class Track:
    """What is known of a track, whatever connections it comes by."""

    # The first frame that is not there yet.
    wanted: int = 0
    # Frames that came, those of them that were acknowledged, and how many came again.
    came: int = 0
    acknowledged: int = 0
    again: int = 0
    connection: socket.socket | None = None


class KmpSink(Sink):
    """Takes all tracks of one channel."""

    def __init__(self, port: int, name: str, listen: str):
        self.listener = socket.create_server((listen, port))
        self.lock = threading.Lock()
        self.tracks: dict[str, Track] = {}
        self.refusals: list[str] = []
        super().__init__(port, name, listen)

    def url_from(self, host: str) -> str:
        return f"kmp://{host}:{self.port}"

    def push_from(self, host: str) -> dict:
        return {**super().push_from(host), "channel_id": self.name}

    def listen(self):
        while not self.stopped:
            with contextlib.suppress(OSError):
                connection, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=[connection], daemon=True).start()

    def hang_up(self):
        with self.lock:
            connections = [track.connection for track in self.tracks.values() if track.connection]
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def stop(self):
        self.stopped = True
        # Wakes who waits for a connection.
        self.listener.shutdown(socket.SHUT_RDWR)
        super().stop()
        self.listener.close()

    def figures(self) -> dict[str, dict[str, int]]:
        """Of each track: frames that came and were acknowledged, and those that came again."""
        check(not self.refusals, f"{self.url} refused: {self.refusals}")
        with self.lock:
            return {name: {"acknowledged": track.acknowledged, "again": track.again} for name, track in self.tracks.items()}

    def serve(self, connection: socket.socket):
        try:
            connection.settimeout(SILENT)
            with connection, connection.makefile("rb") as stream:
                self.take(connection, stream)
        except (OSError, EOFError):
            pass
        except Refused as why:
            self.refusals.append(str(why))
        self.push_ended()

    def take(self, connection: socket.socket, stream):
        kind, header, _ = packet(stream)
        if kind != b"cnct":
            raise Refused(f"it begins with {kind!r}, not with cnct")
        channel, name, frame = fields(CONNECT, header)
        if (channel := text(channel)) != self.name:
            raise Refused(f"the channel {channel!r} is not {self.name!r}")
        with self.lock:
            track = self.tracks.setdefault(text(name), Track())
            before, track.connection = track.connection, connection
            if track.wanted - frame > BACK_MAX:
                track.wanted = frame
        if before:
            # A new connection of a track replaces the old one.
            with contextlib.suppress(OSError):
                before.shutdown(socket.SHUT_RDWR)
        is_video, needs_keyframe, acknowledged_at = None, True, time.monotonic()
        while True:
            kind, header, data = packet(stream)
            match kind:
                case b"minf":
                    media, _, timescale = fields(MEDIA, header)
                    if timescale == 0:
                        raise Refused("the timescale is 0")
                    is_video, needs_keyframe = media == VIDEO, True
                case b"fram":
                    _, _, flags = fields(FRAME, header)
                    if is_video is None or not data:
                        raise Refused("a frame is empty, or before its media info")
                    if flags & KEYFRAME:
                        needs_keyframe = False
                    frame += 1
                    if frame <= track.wanted:
                        track.again += 1
                        continue
                    track.wanted, track.came = frame, track.came + 1
                    if is_video and not needs_keyframe:
                        self.picture_came()
                case b"eost":
                    acknowledge(connection, track)
                    return
                case b"null":
                    pass
                case _:
                    raise Refused(f"there is no packet {kind!r}")
            if time.monotonic() - acknowledged_at >= ACKNOWLEDGE:
                acknowledged_at = time.monotonic()
                acknowledge(connection, track)


def packet(stream) -> tuple[bytes, bytes, bytes]:
    """The next packet: its kind, its header behind the head, its data."""
    kind, header_len, data_len, _ = HEAD.unpack(exactly(stream, HEAD.size))
    if not HEAD.size <= header_len <= HEADER_MAX or data_len > DATA_MAX:
        raise Refused(f"a packet {kind!r} has a header of {header_len} and data of {data_len} bytes")
    return kind, exactly(stream, header_len - HEAD.size), exactly(stream, data_len)


def exactly(stream, count: int) -> bytes:
    if len(read := stream.read(count)) < count:
        raise EOFError
    return read


def fields(known: struct.Struct, header: bytes) -> tuple:
    """The fields that a header begins with; it may be longer than we know."""
    if len(header) < known.size:
        raise Refused(f"a header has {len(header)} of {known.size} bytes")
    return known.unpack_from(header)


def text(padded: bytes) -> str:
    return padded.rstrip(b"\0").decode(errors="replace")


def acknowledge(connection: socket.socket, track: Track):
    """All frames before the first that is wanted."""
    connection.sendall(HEAD.pack(b"ackf", 40, 0, 0) + struct.pack("<QQII", track.wanted, 0, 0, 0))
    track.acknowledged = track.came
