"""How one worker delivers."""

import os
import secrets
import socket
from dataclasses import dataclass, field

from aiprod_ops.errors import ConfigurationError
from aiprod_ops.units import Seconds

LONGEST_TAKEOVER = Seconds(10)


def _name() -> str:
    return f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """The deliveries of a worker that was killed are due again when its lease ends, and others look for them so often:
    lease + look after its last beat, 8 s. A lease is renewed, so it may be shorter than a request."""

    slots: int = 512  #: deliveries in hand, of all endpoints; each may need a file descriptor
    lease: Seconds = Seconds(6)
    beat: Seconds = Seconds(2)  #: so often leases are renewed
    look: Seconds = Seconds(2)  #: so often it looks without having been told of anything
    probing: Seconds = Seconds(5)  #: so often it looks whether a disabled endpoint is to be probed
    drain: Seconds = Seconds(20)  #: so long requests may go on when it is to end
    lane: int = 20  #: deliveries of an ordered endpoint that are leased together
    name: str = field(default_factory=_name)

    def __post_init__(self) -> None:
        if not 2 * self.beat <= self.lease <= LONGEST_TAKEOVER - self.look:
            raise ConfigurationError(
                f"a lease of {self.lease} s, renewed every {self.beat} s, and others look every {self.look} s; "
                f"expected a lease of at least two beats, that ends with a look within {LONGEST_TAKEOVER} s"
            )
