"""The migrations folder of a target: where the files of verified runs go, and where those of a rollback leave from."""

from collections.abc import Callable
from pathlib import Path

from aiprod_ops.domain.revisions import following, follows, same
from aiprod_ops.errors import ConfigurationError

PLACE = "migrations/"  #: how evidence tells a file there: the folder's own path is another one on each machine


class MigrationsFolder:
    """`ran` answers the Alembic revisions that the target says it is at."""

    def __init__(self, folder: Path, ran: Callable[[], set[str]]) -> None:
        self._folder, self._ran = folder, ran

    def check(self) -> None:
        if not self._folder.is_dir():
            raise ConfigurationError(
                f"the folder for migrations, {self._folder}, is not there: what is built would be declared nowhere",
                hint="make it, or mend `migrations` in the target's configuration",
            )

    def deliver(self, name: str, text: str) -> str:
        """After the heads of what is there, so that two in a row do not make two heads."""
        others = [path.read_text() for path in sorted(self._folder.glob("*.py")) if path.name != name]
        (self._folder / name).write_text(following(text, others))
        return f"{PLACE}{name}"

    def withdraw(self, name: str, text: str) -> str:
        path = self._folder / name
        if not path.is_file():
            return "it is gone already"
        there, revision = path.read_text(), name.partition("_")[0]
        if not same(there, text):
            return f"it stays in {self._folder}: somebody changed it; it declares what is not there any more"
        if revision in self._ran() or any(
            follows(other.read_text(), revision) for other in self._folder.glob("*.py") if other != path
        ):
            return f"it stays in {self._folder}, others follow it or it has run: write a revision that takes it back"
        path.unlink()
        return f"removed from {self._folder}"
