"""Where the jobs will run: what the files name beside the jobs themselves. Names of secrets, never a secret."""

from dataclasses import dataclass

from aiprod_ops.actions.instance_promise import Installed
from aiprod_ops.domain.schedules import PROGRAM, Job

MARK = "Written by `aiprod-ops schedule render`"  #: in the first lines of each file of ours
HEAD = f"# {MARK}: render it again rather than edit it.\n"
HOME = "/etc/aiprod-ops"
STATE = "/var/lib/aiprod-ops"


@dataclass(frozen=True)
class Installation:
    """`state` is the folder that the configuration names, or empty for /var/lib/aiprod-ops; `reads` and `writes` are
    further places that the jobs need. `environment_file` holds `NAME=value` lines with the DSNs; `passfile` is libpq's.
    `state_nfs` (SERVER:/PATH) is the share that keeps the state of Cloud Run jobs, reached through `subnetwork`.
    """

    program: str = PROGRAM
    user: str = PROGRAM
    state: str = ""
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    environment_file: str = f"{HOME}/environment"
    passfile: str = ""
    mailto: str = "root"
    prom_folder: str = ""
    push: str = ""
    image: str = ""
    namespace: str = ""
    secret: str = PROGRAM
    project: str = ""
    location: str = ""
    service_account: str = ""
    state_nfs: str = ""
    subnetwork: str = ""
    pages: str = ""
    target: str = ""
    promised: Installed | None = None

    def command(self, job: Job, *more: str) -> tuple[str, ...]:
        """The whole command line, with where its metrics go."""
        is_told = job.wish.work != "run"  # what a run was to bring about, a check tells
        metrics = ("--prom-file", f"{self.prom_folder}/{job.name}.prom") if self.prom_folder and is_told else ()
        push = ("--push", self.push) if self.push and is_told else ()
        return (self.program, *job.words, *more, *metrics, *push)

    def page(self, job: Job) -> str:
        """Where the runbook's page is; empty without a site."""
        return f"{self.pages.rstrip('/')}/runbooks/{job.wish.runbook}/" if self.pages else ""
