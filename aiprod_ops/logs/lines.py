"""Whole lines out of blocks that end anywhere, in bounded memory."""

from aiprod_ops.logs.entries import Reading

LONGEST = 8 * 1024 * 1024  #: bytes of one entry; what is longer is left out and counted


class Lines:
    """Holds back what is not finished yet."""

    def __init__(self, reading: Reading, longest: int = LONGEST) -> None:
        self._reading = reading
        self._longest = longest
        self._before = b""  # whole lines that were given back
        self._rest = b""  # a line that is not whole
        self._skips = False

    def feed(self, block: bytes) -> bytes:
        """The whole lines that are there now, each with its newline."""
        end = block.rfind(b"\n") + 1
        if not end:
            self._hold(self._rest + block)
            return b""
        if self._skips:
            start = block.find(b"\n") + 1
            self._reading.unread_bytes += start
            self._skips, block, end = False, block[start:], end - start
        whole = b"".join((self._before, self._rest, memoryview(block)[:end]))  # copied once
        self._before = self._rest = b""
        self._hold(block[end:])
        return whole

    def end(self) -> bytes:
        """What is left, which no newline ended."""
        whole = self._before + self._rest + (b"\n" if self._rest else b"")
        self._before = self._rest = b""
        return whole

    def give_back(self, unfinished: bytes) -> None:
        """Whole lines: their entry may go on in the next block."""
        self._before += unfinished
        if len(self._before) > self._longest:
            self._leave_out_before()
            self._reading.unread_lines += 1

    def _hold(self, rest: bytes) -> None:
        if self._skips or len(rest) > self._longest:
            if rest.startswith(b"\t"):  # goes on with the entry before it; any other line leaves that one whole
                self._leave_out_before()
            self._reading.unread_bytes += len(rest)
            self._reading.unread_lines += not self._skips
            self._skips, rest = True, b""
        self._rest = rest

    def _leave_out_before(self) -> None:
        self._reading.unread_bytes += len(self._before)
        self._before = b""
