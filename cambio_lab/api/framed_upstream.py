"""What a desktop shows, on its way into a viewer's WebSocket."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from ..desktop.rfb.upstream import RfbUpstream
from . import metrics
from .frames import header

if TYPE_CHECKING:
    from tornado.iostream import IOStream

FRAME_ROOM = 10
"""Bytes in front of a read, where the longest header of a WebSocket frame fits."""
READ_SIZE = 256 * 1024
_TO_VIEWER = metrics.VNC_BYTES.labels("to_viewer")


class FramedUpstream(RfbUpstream):
    """Puts what it reads into WebSocket frames in place: the bytes go from one socket to the other uncopied.

    The read buffer has room in front for the frame's header. While the viewer's socket does not take all of it, the
    desktop is not read: one buffer is all that a slow viewer costs here.
    """

    def __init__(self) -> None:
        super().__init__()
        self._stream: IOStream | None = None
        self._frame = memoryview(bytearray(FRAME_ROOM + READ_SIZE))

    def attach(self, stream: IOStream) -> None:
        """From now on what the desktop sends is written to ``stream``."""
        self._stream = stream

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._frame[FRAME_ROOM:] if self._stream is not None else super().get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        if self._stream is None:
            super().buffer_updated(nbytes)
            return
        if self._stream.closed():
            self.close()
            return
        head = header(nbytes)
        start = FRAME_ROOM - len(head)
        self._frame[start:FRAME_ROOM] = head
        frame = self._frame[start : FRAME_ROOM + nbytes]
        sent = self._send(frame)
        _TO_VIEWER.inc(nbytes)
        if sent < len(frame):
            self.pause()
            self._stream.write(frame[sent:]).add_done_callback(lambda _: self.resume())

    def _send(self, frame: memoryview) -> int:
        """How much the viewer's socket takes at once; Tornado's queue is for the rest."""
        assert self._stream is not None
        if self._stream.writing() or isinstance(self._stream.socket, ssl.SSLSocket):
            return 0
        try:
            return self._stream.socket.send(frame)
        except OSError:  # it takes nothing now, or never again: Tornado finds out
            return 0
