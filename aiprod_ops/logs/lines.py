"""Whole lines out of blocks that end anywhere, in bounded memory."""

from aiprod_ops.logs.entries import Reading

LONGEST = 8 * 1024 * 1024  #: bytes of one entry; what is longer is left out and counted


class Lines:
    """Holds back what is not finished yet."""

    def __init__(self, reading: Reading, longest: int = LONGEST) -> None:
        self._reading = reading
        self._longest = longest
        self._rest = b""
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
        whole = b"".join((self._rest, memoryview(block)[:end]))  # copied once
        self._rest = b""
        self._hold(block[end:])
        return whole

    def end(self) -> bytes:
        """What is left, which no newline ended."""
        rest, self._rest = self._rest, b""
        return rest + b"\n" if rest else b""

    def give_back(self, unfinished: bytes) -> None:
        """An entry of several lines may go on in the next block."""
        self._hold(unfinished + self._rest)

    def _hold(self, rest: bytes) -> None:
        if self._skips or len(rest) > self._longest:
            self._reading.unread_bytes += len(rest)
            self._reading.unread_lines += not self._skips
            self._skips, rest = True, b""
        self._rest = rest
