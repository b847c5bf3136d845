"""How a worker works: read once from the environment, passed down."""

import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiprod_ops.domain.attempts import MOST
from aiprod_ops.errors import ConfigurationError
from aiprod_ops.units import Seconds

RENDERER = "AIPROD_OPS_RENDERER"  #: package.module:attribute


def _name() -> str:
    return f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True)
class WorkSettings:
    """One worker. Its name is its own: after a restart it is another. With these times the work of one that was killed
    is taken over within lease + look = 7 s of its last beat."""

    concurrency: int = 8  #: jobs at a time
    longest: Seconds = Seconds(1800)  #: so long may an attempt take
    most_attempts: int = MOST
    beat: Seconds = Seconds(2)  #: so often it says that it is alive
    lease: Seconds = Seconds(6)  #: so long it need not be heard of
    look: Seconds = Seconds(1)  #: so often it looks for work without having been told of any
    drain: Seconds = Seconds(20)  #: so long jobs may go on when it is to end; then they are given back
    name: str = field(default_factory=_name)

    def __post_init__(self) -> None:
        if self.lease < 2 * self.beat:
            raise ConfigurationError(
                f"a lease of {self.lease} s with a heart-beat each {self.beat} s: one late beat would lose the job; "
                "expected a lease of at least two beats"
            )


def renderer_name(environ: Mapping[str, str]) -> str:
    """The dotted name of the renderer; raises ConfigurationError where the environment has none."""
    if not environ.get(RENDERER):
        raise ConfigurationError(
            f"the worker does not know what renders jobs: {RENDERER} is not set",
            hint=f"export {RENDERER}=your_package.module:Renderer, or give --renderer; to try it out: "
            "aiprod_ops.lab.rendering:Renderer",
        )
    return environ[RENDERER]
