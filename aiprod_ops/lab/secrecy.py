"""The promise about secrets: passwords are known here, so they can be looked for wherever something goes out."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from aiprod_ops.lab import postgres
from aiprod_ops.lab.bench import Bench, require, write_config
from aiprod_ops.lab.fleet import Fleet

_IDENTITIES = {"probe": "aiprod_probe", "actor": "aiprod_actor", "backup": "aiprod_backup"}


def no_secret_in_any_output(bench: Bench) -> str:
    """No password is in any output, file or process list."""
    passwords = _passwords(bench.lab)
    env = {_variable(name): _dsn(bench.lab, role, passwords[role]) for name, role in _IDENTITIES.items()}
    config, state = bench.folder / "secret.toml", bench.folder / "state"
    write_config(config, state, bench.lab, **{name: f"env:{_variable(name)}" for name in _IDENTITIES})
    with _process_list() as lines:
        outputs = dict(_outputs(bench, config, env))
    files = {str(path): path.read_text(errors="replace") for path in state.rglob("*") if path.is_file()}
    places = outputs | files | {f"the process list: {line.split()[0]} …": line for line in lines}
    wanted = [passwords[role] for role in _IDENTITIES.values()]
    bad = sorted(place for place, text in places.items() if any(word in text for word in wanted))
    require(not bad, f"a password is in {', '.join(bad)}")
    loose = sorted(str(path) for path in state.rglob("*") if path.is_file() and path.stat().st_mode & 0o077)
    require(not loose, f"others may read {', '.join(loose[:3])}")
    return f"3 passwords, none in {len(outputs)} outputs, {len(files)} files, {len(lines)} command lines of processes"


def _outputs(bench: Bench, config: Path, env: dict[str, str]) -> Iterator[tuple[str, str]]:
    """What each command prints, those that fail included, by the command."""

    def said(*words: str, dsn: str = "") -> tuple[str, str]:
        done = bench.call(*words, env={**env, "AIPROD_OPS_DSN": dsn}, config=config)
        return f"the output of {' '.join(words)} (exit {done.returncode})", done.stdout + done.stderr

    probe = env[_variable("probe")]
    plans = "plan" in bench.entry.book.phases
    with bench.problem() if plans else bench.provoked() as draft:
        yield said("check", *bench.words)
        yield said("check", *bench.words, "-o", "json")
        yield said("check", *bench.words, dsn=probe.replace(f":{bench.lab.ports[0]}/", ":1/"))
        yield said("check", *bench.words, dsn=probe.replace("?", "?sslmode=no&"))
        if draft is not None:
            yield said("plan", *bench.words, "-o", "json")
            if bench.proves:
                yield said("prove", bench.entry.id, "--plan", draft.digest)
            name, text = said(*bench.applying(draft))
            require("(exit 0)" in name, f"{name}: {text[-300:]}")
            yield name, text
            yield said("rollback", bench.runs()[-1])
            yield said("runs", "show", bench.runs()[-1], "-o", "json")
    yield said("runs", "list", "-o", "json")
    yield said("evidence", "list", "-o", "json")


def _passwords(fleet: Fleet) -> dict[str, str]:
    """By role, from the lab's password file."""
    lines = [line.split(":") for line in fleet.passfile.read_text().splitlines()]
    return {parts[3]: parts[4] for parts in lines}


def _dsn(fleet: Fleet, role: str, password: str) -> str:
    """Over TCP, with the password in it."""
    return f"postgresql://{role}:{password}@127.0.0.1:{fleet.ports[0]}/{postgres.DATABASE}?connect_timeout=5"


def _variable(identity: str) -> str:
    return f"CONFORM_{identity.upper()}"


@contextmanager
def _process_list() -> Iterator[set[str]]:
    """Command lines of our children and their children, as every user of the machine sees them in `ps`."""
    lines: set[str] = set()
    over = threading.Event()
    me = psutil.Process()

    def watch() -> None:
        while not over.wait(0.02):
            for child in me.children(recursive=True):
                with suppress(psutil.Error):
                    lines.add(" ".join(child.cmdline()))

    watcher = threading.Thread(target=watch, name="process list", daemon=True)
    watcher.start()
    try:
        yield lines
    finally:
        over.set()
        watcher.join()
        lines.discard("")
