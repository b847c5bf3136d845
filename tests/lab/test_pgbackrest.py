"""What only pgBackRest has: backups that rest on others, locks, a configuration of its own, and its own bad days."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread

import psutil
import pytest
from command_line import lone_server, short_folder, until
from repositories import PASSPHRASE, STANZA, SYSTEM, Site, altered, configure, flip, site_of

from aiprod_ops.adapters.local import processes
from aiprod_ops.adapters.pgbackrest.program import Program
from aiprod_ops.adapters.pgbackrest.repository import PgBackRest
from aiprod_ops.domain.backups import Origin, State
from aiprod_ops.errors import ConfigurationError, Failed, Held, PermissionMissing, Refused, TimedOut, Unreachable
from aiprod_ops.lab import faults
from aiprod_ops.units import Bytes, Seconds

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """One full backup, and mark a after it."""
    with site_of("encrypted") as made:
        made.backups.append(made.repository.take("base"))
        made.mark("a")
        yield made


def program(site: Site) -> Program:
    return Program(STANZA, env=site.env)


def begin(site: Site, label: str) -> "subprocess.Popen[bytes]":
    """A backup that somebody else takes."""
    words = ["pgbackrest", f"--stanza={STANZA}", "--log-level-console=off", "--log-level-stderr=off"]
    words += ["backup", "--type=full", f"--annotation=label={label}"]
    return subprocess.Popen(words, env={**os.environ, **site.env}, cwd="/")


def test_those_that_rest_on_others(site: Site) -> None:
    program(site).run("backup", "--type=diff")
    program(site).run("backup", "--type=incr")
    site.mark("b")
    full, differential, incremental = site.repository.listed()
    assert [each.kind for each in (full, differential, incremental)] == ["full", "differential", "incremental"]
    assert differential.rests_on == (full.id,)
    assert set(incremental.rests_on) == {full.id, differential.id}
    marks, _, backup = site.restored(Origin())
    assert (marks, backup) == (["a", "b"], incremental.id)
    # The negative control damages what a restore of just this one reads, wherever that is kept.
    assert "the spare cannot be restored" in site.repository.refusal(incremental.id, site.folder / "spare")
    with pytest.raises(Refused, match=r"2 backups rest on .*F: ") as caught:
        site.repository.remove(full.id)
    assert caught.value.hint == "remove them first"
    # Damage in the full one is found by a restore of what rests on it.
    with altered(path := site.stored(full.id, "jobs")):
        flip(path)
        with pytest.raises(Failed, match=f"the backup {incremental.id} cannot be restored"):
            site.restored(Origin())
    for each in (incremental, differential):
        site.repository.remove(each.id)
    assert [each.id for each in site.repository.listed()] == [full.id]


def test_the_only_full_one_stays(site: Site) -> None:
    with pytest.raises(Refused, match="cannot be expired until another full backup"):
        site.repository.remove(site.backups[0])
    assert [each.id for each in site.repository.listed()] == site.backups


def test_verify_is_not_believed(site: Site) -> None:
    """The reason why it is never asked: this will fail on the day that it learns to find damage."""
    with altered(path := site.stored(site.backups[0], "jobs")):
        flip(path)
        assert subprocess.run(
            ["pgbackrest", f"--stanza={STANZA}", "verify"], env={**os.environ, **site.env}, capture_output=True
        ).returncode == 0  # fmt: skip


def test_it_waits_for_the_backup_of_somebody_else(site: Site) -> None:
    """And takes none of its own where that one carries its label. No secret stands in the process list meanwhile."""
    said: list[str] = []
    with begin(site, "other") as child:
        until(site.running, "the other backup is not listed as running")
        with pytest.raises(Refused, match="is being taken"):
            site.repository.remove(site.running()[0].id)
        family = [psutil.Process(child.pid), *psutil.Process(child.pid).children()]
        assert not any(PASSPHRASE in word for process in family for word in process.cmdline())
        taken = site.repository.take("other", said.append)
    assert said == ["waiting for a backup of somebody else to end"]
    assert [(each.id, each.label) for each in site.repository.listed()] == [(site.backups[0], "base"), (taken, "other")]
    site.repository.remove(taken)


def test_a_killed_backup_is_gone_on_with(site: Site) -> None:
    """It is listed as failed until pgBackRest resumes it, under the same name and with the label of the second."""
    with begin(site, "first") as child:
        [running] = until(site.running, "the backup is not listed as running")
        child.send_signal(signal.SIGKILL)
    until(lambda: not site.running(), "its lock is held by nobody")
    [left] = [each for each in site.repository.listed() if each.id not in site.backups]
    assert (left.id, left.state) == (running.id, State.FAILED)
    assert "nobody on this machine is at work on it" in left.said
    assert site.repository.take("second")
    [done] = [each for each in site.repository.listed() if each.id not in site.backups]
    assert (done.label, done.state) == ("second", State.SUCCESSFUL)
    assert site.restored(Origin(done.id))[0][:1] == ["a"]
    site.repository.remove(done.id)


def test_a_killed_backup_can_be_thrown_away(site: Site) -> None:
    with begin(site, "lost") as child:
        [running] = until(site.running, "the backup is not listed as running")
        child.send_signal(signal.SIGKILL)
    until(lambda: not site.running(), "its lock is held by nobody")
    site.repository.remove(running.id)
    assert [each.id for each in site.repository.listed()] == site.backups


def test_a_lock_that_nobody_gives_back(site: Site) -> None:
    """Held by what pgBackRest does not tell as a backup."""
    lock = site.folder / "lock" / f"{STANZA}-backup.lock"
    lock.touch()
    with lock.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Held, match="unable to acquire lock") as caught:
            site.repository.remove(_another(site))
    assert "pgbackrest info" in caught.value.hint
    site.repository.remove(_another(site))


def _another(site: Site) -> str:
    return site.repository.take("another")


def test_files_of_another_user_belong_to_the_copy(site: Site) -> None:
    """As root pgBackRest gives each file to the user it had on the server: the copy's server could not read it."""
    note = site.server.data / "note"
    note.write_text("left here by somebody else")
    if os.geteuid() == 0:
        shutil.chown(note, "nobody")
    taken = site.repository.take("noted")
    note.unlink()
    with site.platform().copy("copy", origin=Origin(taken)):
        assert (site.copies / "copy/data/note").stat().st_uid == os.geteuid()
    site.repository.remove(taken)


def test_a_restore_is_ours_whatever_the_configuration_says(site: Site) -> None:
    """Options for the server's own restores, and a server on another host, do not change where a copy goes."""
    config = site.folder / "pgbackrest.conf"
    with altered(config):
        more = (
            f"pg1-host=db.example.com\n[{STANZA}:restore]\ndelta=y\nlink-all=y\ndb-include=postgres\narchive-mode=off\n"
        )
        config.write_text(config.read_text() + more + "tablespace-map=fast=/nowhere\n")
        assert site.restored(Origin())[0] == ["a", "b"]


def test_pages_that_were_damaged_when_it_was_taken(site: Site) -> None:
    """The server's own damage: pgBackRest keeps such a backup, exits 0, and tells of it in its list."""
    [(path,)] = site.sql("SELECT pg_relation_filepath('jobs_id')")
    site.sql("CHECKPOINT")
    with altered(file := site.server.data / str(path)):
        flip(file)
        with pytest.raises(Failed, match="pages of the server had wrong checksums"):
            site.repository.take("damaged")
        [damaged] = [each for each in site.repository.listed() if each.state is State.FAILED]
        assert str(path).rpartition("/")[2] in damaged.said
        assert site.restored(Origin())[2] == site.backups[0]
        site.repository.remove(damaged.id)


def test_a_list_that_cannot_be_read_is_not_an_empty_one(site: Site) -> None:
    """`info` exits 0 then. What pgBackRest quotes of the file, its keys among them, is not repeated."""
    folder = site.folder / "repo" / "backup" / STANZA
    lists = [folder / "backup.info", folder / "backup.info.copy"]
    with altered(*lists):
        for file in lists:
            flip(file)
        with pytest.raises(Failed, match="cannot read its repository 1") as caught:
            site.repository.listed()
    assert "cipher-pass" not in caught.value.message
    assert PASSPHRASE not in caught.value.message


def test_a_wrong_passphrase(site: Site) -> None:
    config = site.folder / "pgbackrest.conf"
    with altered(config):
        config.write_text(config.read_text().replace(PASSPHRASE, "something-else"))
        with pytest.raises(Failed) as caught:
            site.repository.listed()
    assert "something-else" not in caught.value.message


def test_no_stanza_no_configuration_no_program(site: Site, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no stanza 'mian'") as caught:
        PgBackRest(Program("mian", env=site.env)).listed()
    assert "stanza-create" in caught.value.hint
    nowhere = {"PGBACKREST_CONFIG": str(tmp_path / "none.conf")}
    with pytest.raises(ConfigurationError, match=r"none\.conf") as caught:
        PgBackRest(Program(STANZA, env=nowhere)).listed()
    assert "$PGBACKREST_CONFIG" in caught.value.hint
    with pytest.raises(ConfigurationError, match="there is no program"):
        PgBackRest(Program(STANZA, path=str(tmp_path / "pgbackrest"))).listed()


def test_a_stanza_that_was_stopped(site: Site) -> None:
    program(site).run("stop")
    try:
        with pytest.raises(Refused, match="stop file exists") as caught:
            site.repository.take("stopped")
        assert f"--stanza={STANZA} start" in caught.value.hint
    finally:
        program(site).run("start")


def test_a_server_that_is_not_there(site: Site) -> None:
    config = site.folder / "pgbackrest.conf"
    with altered(config):
        config.write_text(config.read_text().replace("pg1-user=", "pg1-port=1\npg1-user="))
        with pytest.raises(Unreachable):
            site.repository.take("nobody")


def test_another_server_in_the_same_stanza(site: Site) -> None:
    """Its system identifier is another one: nothing is written."""
    with short_folder() as folder:
        own = configure(folder, "encrypted", **{"repo1-path": str(site.folder / "repo")})
        with lone_server(folder, Path(SYSTEM), archive_mode="on", archive_command="/bin/true"):
            other = PgBackRest(Program(STANZA, env={"PGBACKREST_CONFIG": str(own)}))
            with pytest.raises(ConfigurationError) as caught:
                other.take("stranger")
    assert f"--stanza={STANZA} check" in caught.value.hint
    assert [each.id for each in site.repository.listed()] == site.backups


def test_a_program_that_hangs_is_ended(site: Site, tmp_path: Path) -> None:
    hanging = tmp_path / "pgbackrest"
    hanging.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'import time; time.sleep(600)' {tmp_path}\n")
    hanging.chmod(0o755)
    slow = PgBackRest(replace(program(site), path=str(hanging), patience=Seconds(0.3)))
    with pytest.raises(TimedOut, match=r"info did not end within 0.3 s and was killed"):
        slow.listed()
    assert not [each for each in psutil.process_iter(["cmdline"]) if str(tmp_path) in (each.info["cmdline"] or [])]


def test_a_restore_that_was_left_alone_is_swept(site: Site) -> None:
    """Whoever restores is killed, and pgbackrest writes on into a copy that nobody waits for."""
    script = (
        "import sys\nfrom aiprod_ops import config\nfrom aiprod_ops.cli import world\n"
        "from aiprod_ops.domain.backups import Origin\nfrom aiprod_ops.engine.journal import OperationLog\n"
        "settings = config.load(sys.argv[1])\n"
        "platform = world.platform_of(settings, settings.target('here'), OperationLog())\n"
        "with platform.copy('left', origin=Origin()):\n    pass\n"
    )
    command = [sys.executable, "-c", script, str(site.configuration())]
    environment = {**os.environ, **site.env, "AIPROD_OPS_STATE": str(site.folder)}
    with subprocess.Popen(command, env=environment, cwd="/") as child:
        until(lambda: processes.below(site.copies), "nothing runs in the copy", 60)
        child.kill()
    assert site.platform().sweep(lambda _: False) == ["left"]
    assert not processes.below(site.copies)
    assert not list(site.copies.iterdir())


if os.geteuid() == 0 and sys.platform == "linux":

    def test_a_disk_that_fills_up_while_it_restores(site: Site) -> None:
        with faults.small_filesystem(site.folder / "filling", Bytes(2_000_000_000)) as copies:

            def fill(text: str) -> None:
                if text.startswith("restoring"):
                    room = shutil.disk_usage(copies).free - 5_000_000
                    with (copies / "copy" / "ballast").open("wb") as file:
                        os.posix_fallocate(file.fileno(), 0, room)

            platform = site.platform(copies)
            with pytest.raises(Failed, match="unable to write") as caught, platform.copy("copy", fill, Origin()):
                pass
            assert caught.value.hint == "is the disk full?"
            assert not list(copies.iterdir())

    def test_root_does_not_write_into_the_repository_of_another(site: Site) -> None:
        repository = site.folder / "repo"
        shutil.chown(repository, "nobody")
        try:
            with pytest.raises(PermissionMissing, match="belongs to nobody") as caught:
                site.repository.take("roots")
            assert "sudo -u nobody" in caught.value.hint
        finally:
            shutil.chown(repository, "root")

    def test_a_user_who_may_not_read_the_repository(site: Site, tmp_path: Path) -> None:
        other = tmp_path / "pgbackrest"
        other.write_text('#!/bin/sh\nexec setpriv --reuid=65534 --regid=65534 --clear-groups pgbackrest "$@"\n')
        other.chmod(0o755)
        with pytest.raises(PermissionMissing, match="ermission denied") as caught:
            PgBackRest(replace(program(site), path=str(other))).listed()
        assert "as the user that runs pgBackRest" in caught.value.hint


def test_two_at_once(site: Site) -> None:
    """Both come to their backup; the second one waits."""
    found: dict[str, str] = {}

    def taking(label: str) -> Thread:
        return Thread(target=lambda: found.update({label: site.repository.take(label)}))

    threads = [taking("left"), taking("right")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    labels = {each.label: each.id for each in site.repository.listed()}
    assert found == {label: labels[label] for label in ("left", "right")}
