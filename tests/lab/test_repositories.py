"""One contract for every kind of repository: what is stored restores as a whole, or is refused with what is wrong."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from command_line import until
from repositories import HAS_PGBACKREST, STANZA, SYSTEM, Site, altered, connect, flip, site_of

from aiprod_ops.actions.wal_keeping import unkept_since
from aiprod_ops.adapters.local.instance import PostgresServer
from aiprod_ops.adapters.local.programs import find
from aiprod_ops.adapters.local.repository import Fetched
from aiprod_ops.adapters.local.unprivileged import Way, command
from aiprod_ops.domain.backups import Origin, State
from aiprod_ops.errors import Failed, Held, Refused

pytestmark = pytest.mark.lab

KINDS = ["folder", *(["pgbackrest", "encrypted"] if HAS_PGBACKREST else [])]


@pytest.fixture(scope="module", params=KINDS)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """Two backups, `first` and `second`, with marks a and b between them, and c after them."""
    with site_of(request.param) as made:
        made.backups.append(made.repository.take("first"))
        made.mark("a")
        made.mark("b")
        made.backups.append(made.repository.take("second"))
        made.mark("c")
        yield made


def test_both_are_listed_oldest_first(site: Site) -> None:
    listed = site.repository.listed()
    assert [(each.id, each.label, each.state) for each in listed] == [
        (site.backups[0], "first", State.SUCCESSFUL),
        (site.backups[1], "second", State.SUCCESSFUL),
    ]
    [(system,)] = site.sql("SELECT system_identifier::text FROM pg_control_system()")
    for each in listed:
        assert each.instance == system
        assert each.kind == "full"
        assert each.rests_on == ()
        assert (each.size or 0) > 20_000_000
        assert each.ended is not None
        assert each.started <= each.ended
    assert bool(listed[0].key) == (site.kind == "encrypted")


def test_the_arrangement_tells_which_moments_can_be_restored(site: Site) -> None:
    arrangement = site.repository.arrangement()
    assert arrangement.recovers_from == site.repository.listed()[0].taken
    assert arrangement.recovers_to is not None
    # Files have their times in whole seconds, some of them.
    assert site.moments["b"] < arrangement.recovers_to + timedelta(seconds=1)
    assert arrangement.recovers_to <= datetime.now(UTC)
    assert arrangement.keeps == (None if site.kind == "folder" else 7)


def test_a_copy_of_a_folder_renews_no_time() -> None:
    """`cp -r` gives all files the time of the copying: they say nothing of when the backup and the WAL are from."""
    with site_of("folder") as site:
        site.repository.take("first")
        told = site.repository.arrangement()
        assert told.recovers_to is not None
        since = told.recovers_to - site.repository.listed()[0].taken
        assert timedelta(0) <= since < timedelta(seconds=1), "no transaction ended since, and none is lost"
        begun = datetime.now(UTC)  # without the files' own times a backup's is known to the second
        until(lambda: datetime.now(UTC) > begun + timedelta(seconds=1), "time passes")
        site.mark("a")
        [before], reached = site.repository.listed(), site.repository.arrangement().recovers_to
        later = datetime.now(UTC).timestamp() + 9 * 3600
        for path in (*(site.folder / "backups").rglob("*"), *site.archive.iterdir()):
            os.utime(path, (later, later))
        [after] = site.repository.listed()
        assert abs(after.taken - before.taken) < timedelta(minutes=1)
        assert site.repository.arrangement().recovers_to == reached
        assert reached is not None
        assert reached <= site.moments["a"] < reached + timedelta(minutes=1)
        assert site.restored(Origin(at=reached))[0] == ["a"]


def test_a_backup_with_transactions_from_after_the_moment_does_not_lead_to_it() -> None:
    """Where its files' own times were renewed, the time of its end may be told too early; its own WAL tells."""
    with site_of("folder") as site:
        first = site.repository.take("first")
        site.mark("a")
        second = site.folder / "backups" / site.repository.take("second")
        site.mark("b")
        manifest = second / "backup_manifest"
        early = re.sub(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d GMT", "2020-01-01 00:00:00 GMT", manifest.read_text())
        manifest.write_text(early)
        [segment] = site.segments(site.holds["b"])
        shutil.copy(segment, second / "pg_wal" / segment.name)
        for path in (manifest, second / "backup_label"):
            os.utime(path)
        with pytest.raises(Failed, match="manifest"):
            site.restored(Origin(second.name))
        assert site.restored(Origin(at=site.moments["a"]))[::2] == (["a"], first)


def test_the_newest_is_taken_to_the_end_of_the_wal(site: Site) -> None:
    marks, checks, backup = site.restored(Origin())
    assert marks == ["a", "b", "c"]
    assert backup == site.backups[1]
    assert checks[-1].startswith("replayed to the end of the archive, 0000")
    assert any("none is missing" in each for each in checks)


def test_an_older_one_by_its_id(site: Site) -> None:
    marks, checks, backup = site.restored(Origin(site.backups[0]))
    assert (marks, backup) == (["a", "b", "c"], site.backups[0])
    assert checks[-1].startswith("replayed to the end of the archive, 0000")


def test_a_moment_between_two_transactions(site: Site) -> None:
    marks, checks, backup = site.restored(Origin(at=site.moments["a"]))
    assert (marks, backup) == (["a"], site.backups[0])
    assert re.search(r"recovered to .* UTC: the last transaction until then ended at .* UTC", checks[-1])


def test_a_copy_that_went_further_than_was_asked_for_is_found(site: Site) -> None:
    with (
        site.platform().copy("copy", origin=Origin(at=site.moments["b"])) as (database, _),
        pytest.raises(Failed, match=r"recovery went too far, to a transaction that ended at .* was asked for"),
    ):
        site.repository.check_recovered(Fetched("", (), at=site.moments["a"]), database)


def test_a_moment_after_which_nothing_was_committed(site: Site) -> None:
    """PostgreSQL fails where recovery is told of a target that no transaction comes after."""
    quiet = site.moments["c"]
    reached = site.repository.arrangement().recovers_to
    assert reached is not None
    if site.kind == "folder":
        quiet = reached  # what its last transaction tells
    elif reached < quiet:  # stored in the same second
        site.sql("SELECT pg_logical_emit_message(false, 'test', 'no transaction')")
        until(lambda: datetime.now(UTC) > quiet + timedelta(seconds=1), "time passes")
        site.archived()
    marks, checks, _ = site.restored(Origin(at=quiet))
    assert marks == ["a", "b", "c"]
    assert checks[-2].startswith("replayed to the end of the archive, 0000")
    assert checks[-1].startswith("recovered to 20")


def test_an_lsn_between_two_transactions(site: Site) -> None:
    lsn = site.lsns["a"]
    assert site.repository.reaches(site.holds["a"])
    marks, _, _ = site.restored(Origin(site.backups[0], lsn=lsn))
    assert marks == ["a"]
    assert not site.repository.reaches("000000010000FFFF00000000")


def test_what_the_server_archived_last_is_there_also_right_after_a_backup(site: Site) -> None:
    taken = site.repository.take("fresh")
    for (name,) in site.sql("SELECT last_archived_wal FROM pg_stat_archiver"):
        if "." not in name:  # right after a backup it may be the backup's own file that was archived last
            assert site.repository.reaches(name)
    site.repository.remove(taken)


def test_the_negative_control(site: Site) -> None:
    """A flipped byte in a spare is refused, and the stored backup is as it was."""
    stored = site.stored(site.backups[1], "jobs")
    before = stored.read_bytes()
    spare = site.folder / "spare"
    assert re.search("hecksum|decompressionFailed", site.repository.refusal(site.backups[1], spare))
    assert not spare.exists()
    assert stored.read_bytes() == before


def test_a_moment_that_nothing_leads_to_is_refused(site: Site) -> None:
    with pytest.raises(Refused, match=r"there is no backup from before .*\+00:00"):
        site.restored(Origin(at=datetime(2020, 1, 1, tzinfo=UTC)))
    with pytest.raises(Refused, match="archive reaches"):
        site.restored(Origin(at=datetime.now(UTC) + timedelta(minutes=1)))
    with pytest.raises(Refused, match="no backup 20200101-000000F"):
        site.restored(Origin("20200101-000000F"))
    stored = site.repository.listed()[-1]
    with pytest.raises(Refused, match=f"{stored.id} ended at .* UTC, .* was asked for"):
        site.restored(Origin(stored.id, stored.taken - timedelta(seconds=3)))


def test_a_label_is_taken_once(site: Site) -> None:
    assert site.repository.take("second") == site.backups[1]
    assert len(site.repository.listed()) == 2
    with pytest.raises(Refused, match="not a label"):
        site.repository.take("../second")


Damage = Callable[[Site], tuple[Path, Callable[[], object]]]


def heap(site: Site) -> tuple[Path, Callable[[], object]]:
    path = site.stored(site.backups[1], "jobs")
    return path, lambda: flip(path)


def index(site: Site) -> tuple[Path, Callable[[], object]]:
    path = site.stored(site.backups[1], "jobs_id")
    return path, lambda: flip(path)


def truncated(site: Site) -> tuple[Path, Callable[[], object]]:
    path = site.stored(site.backups[1], "jobs")
    return path, lambda: path.write_bytes(path.read_bytes()[:-700])


def emptied(site: Site) -> tuple[Path, Callable[[], object]]:
    path = site.stored(site.backups[1], "jobs")
    return path, lambda: path.write_bytes(b"")


def missing(site: Site) -> tuple[Path, Callable[[], object]]:
    path = site.stored(site.backups[1], "jobs_id")
    return path, path.unlink


def wal_flipped(site: Site) -> tuple[Path, Callable[[], object]]:
    [path] = site.segments(site.holds["c"])
    return path, lambda: flip(path, 300)


def wal_truncated(site: Site) -> tuple[Path, Callable[[], object]]:
    [path] = site.segments(site.holds["c"])
    return path, lambda: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [heap, index, truncated, emptied, missing, wal_flipped, wal_truncated])
def test_damage_is_refused(site: Site, damage: Damage) -> None:
    """Each is found before anything can be read from the copy, and the copy is gone."""
    path, hurt = damage(site)
    with altered(path):
        hurt()
        with pytest.raises(Failed) as caught:
            site.restored(Origin())
        assert re.search(r"backup|WAL", caught.value.message)
        assert not list(site.copies.iterdir())


def test_no_false_alarm_after_that(site: Site) -> None:
    assert site.restored(Origin())[0] == ["a", "b", "c"]


def test_a_segment_that_is_missing_between_others(site: Site) -> None:
    [lost] = site.segments(site.holds["b"])
    with altered(lost):
        lost.unlink()
        with pytest.raises(Failed, match=r"lacks the (WAL )?segment"):
            site.restored(Origin(site.backups[0]))
        # The moments between the backups are lost with it.
        assert site.repository.arrangement().recovers_from == site.repository.listed()[1].taken


def test_an_altered_manifest_is_refused(site: Site) -> None:
    manifests = site.manifests(site.backups[1])
    with altered(*manifests):
        for manifest in manifests:
            flip(manifest)
        with pytest.raises((Failed, Refused), match="manifest"):
            site.restored(Origin(site.backups[1]))


TAKE = """
import sys
from aiprod_ops import config
from aiprod_ops.cli import world
from aiprod_ops.engine.journal import OperationLog
settings = config.load(sys.argv[1])
world.platform_of(settings, settings.target("here"), OperationLog()).backups.take(sys.argv[2])
"""


def test_whoever_takes_one_may_die(site: Site) -> None:
    """A second call with the label finds what became of the first one: it is there once, and restores."""
    words = [sys.executable, "-c", TAKE, str(site.configuration()), "third"]
    with subprocess.Popen(words, env={**os.environ, **site.env}, cwd="/") as child:
        until(site.running, "the backup is not listed as running")
        os.kill(child.pid, signal.SIGKILL)
    taken = site.repository.take("third")
    listed = site.repository.listed()
    assert [(each.id, each.state) for each in listed if each.label == "third"] == [(taken, State.SUCCESSFUL)]
    assert len(listed) == 3
    assert site.restored(Origin(taken))[0] == ["a", "b", "c"]
    site.repository.remove(taken)
    assert [each.id for each in site.repository.listed()] == site.backups


def test_tablespaces_are_kept_or_refused(site: Site) -> None:
    """Never a copy whose links lead into the server's files, or the backup's."""
    place = site.folder / "space"
    place.mkdir(mode=0o700)
    site.sql(f"CREATE TABLESPACE fast LOCATION '{place}'")
    try:
        site.sql("CREATE TABLE spaced TABLESPACE fast AS SELECT 1 AS one")
        if site.kind == "folder":
            with pytest.raises(Refused, match="does not keep"):
                site.repository.take("spaced")
            return
        taken = site.repository.take("spaced")
        with site.platform().copy("copy", origin=Origin(taken)) as (database, _):
            [row] = database.query("SELECT pg_tablespace_location(oid) AS place FROM pg_tablespace WHERE oid > 9999")
            assert Path(row["place"]).is_relative_to(site.copies / "copy")
            assert database.query("SELECT one FROM spaced") == [{"one": 1}]
        site.repository.remove(taken)
    finally:
        site.sql("DROP TABLE IF EXISTS spaced")
        site.sql("DROP TABLESPACE fast")
    assert [each.id for each in site.repository.listed()] == site.backups


def test_a_recovery_that_stops_before_the_last_segment_is_found(site: Site) -> None:
    """Exactly at its beginning, which is the end of the one before: what a restore_command that fails leads to."""
    with site.platform().copy("copy", origin=Origin()) as (database, _):
        [row] = database.query("SELECT pg_last_wal_replay_lsn() - '0/0'::pg_lsn AS at")
        after = int(row["at"]) // (1 << 24)
        assert int(row["at"]) % (1 << 24) == 0, "the last segment was closed by a switch"
        replayed, lost = (f"00000001{number // 256:08X}{number % 256:08X}" for number in (after - 1, after))
        assert site.repository.check_recovered(Fetched("", (), archived=(replayed,)), database)
        with pytest.raises(Failed, match=f"before the last WAL segment, {lost}"):
            site.repository.check_recovered(Fetched("", (), archived=(replayed, lost)), database)


if os.geteuid() == 0 and sys.platform == "linux":

    def test_the_wal_is_open_to_whoever_the_copy_runs_as(site: Site) -> None:
        """In a container that is the user nobody; the files that the server archived are closed to it."""
        folder = site.folder / "nobody"
        folder.mkdir(mode=0o711)
        programs = find(Path(SYSTEM) if SYSTEM else None, how=Way.NOBODY)
        server = PostgresServer(programs, folder / "data", folder / "s", 5432, folder / "server.log")
        fetched = site.repository.fetch(Origin(), server, lambda _: None)
        place = re.search(r'cp "(.*)/%f"', fetched.settings["restore_command"])
        assert place is not None
        for name in fetched.archived:
            read = subprocess.run(command(Way.NOBODY, ["/bin/cat", f"{place[1]}/{name}"]), capture_output=True, cwd="/")
            assert (read.returncode, len(read.stdout)) == (0, 1 << 24), read.stderr
        shutil.rmtree(folder)


def test_what_a_test_restores_is_not_removed_meanwhile() -> None:
    with site_of("folder") as site:
        first, second = (site.repository.take(label) for label in ("first", "second"))
        site.mark("a")
        with site.platform().copy("copy", origin=Origin(first)):
            assert site.repository.in_use(first).startswith(f"{first} is being restored")
            assert site.repository.in_use(second) == ""
            with pytest.raises(Held, match=f"{first} is being restored by a test"):
                site.repository.remove(first)
            site.repository.remove(second)
        assert [each.id for each in site.repository.listed()] == [first]
        assert site.restored(Origin(first))[0] == ["a"], "its WAL is still there"
        assert site.repository.in_use(first) == ""


if HAS_PGBACKREST:

    def test_one_that_expires_while_it_is_restored_is_not_called_damaged() -> None:
        """No lock of pgBackRest's keeps it."""
        with site_of("pgbackrest") as site:
            first, second = (site.repository.take(label) for label in ("first", "second"))
            folder = site.folder / "copy"
            folder.mkdir()
            programs = site.server.programs
            server = PostgresServer(programs, folder / "data", folder / "s", 5432, folder / "server.log")
            with site.repository.holding(Origin(first)) as origin:
                assert origin.backup == first
                with pytest.raises(Refused, match=f"{first} was removed while it was restored"):
                    site.repository.fetch(origin, server, lambda _: site.repository.remove(first))
            shutil.rmtree(site.folder / "repo" / "backup" / STANZA / second / "pg_data" / "base")
            shutil.rmtree(folder / "data")
            with pytest.raises(Failed):
                site.repository.fetch(Origin(second), server, lambda _: None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_without_writes_lacks_nothing_in_its_archive(kind: str) -> None:
    """What it wrote last is closed in time and kept; after that it closes no segment, however long it is quiet."""
    with site_of(kind) as site, closing(connect(site.dsn)) as database:
        site.repository.take("first")
        assert unkept_since(database, site.repository) is None, "nothing closes a segment in time"
        site.sql("ALTER SYSTEM SET archive_timeout = '1s'")
        site.sql("SELECT pg_reload_conf()")
        site.sql("INSERT INTO marks VALUES ('last')")
        until(lambda: unkept_since(database, site.repository) == 1, "the last whole segment is not kept")
        site.sql("ALTER SYSTEM SET archive_command = '/bin/false'")
        site.sql("SELECT pg_reload_conf()")
        site.sql("INSERT INTO marks VALUES ('more')")
        site.sql("SELECT pg_switch_wal()")
        assert unkept_since(database, site.repository) is None


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_failover_only_the_segments_of_the_new_timeline_count(kind: str) -> None:
    """The old primary went on for a while and archived more than the new one has written until now."""
    with site_of(kind) as site:
        site.repository.take("before")
        site.mark("old")
        last = site.segments()[-1]
        further = f"{last.name[:16]}{int(last.name[16:24], 16) + 9:08X}"
        shutil.copy2(last, last.with_name(f"{further}{last.name[24:]}"))
        site.server.stop()
        (site.server.data / "standby.signal").touch()
        site.server.programs.hand_over(site.server.data / "standby.signal")
        site.server.start()
        with closing(connect(site.dsn)) as standby:
            assert unkept_since(standby, site.repository) is None
        site.sql("SELECT pg_promote()")
        site.sql("INSERT INTO marks VALUES ('new')")
        [(current,)] = site.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
        assert str(current).startswith("00000002")
        assert not site.repository.reaches(str(current))
        assert site.repository.reaches(further)
        site.archived()
        assert site.repository.reaches(str(current))
        # On the old timeline and not there: the new one left it later, so that one leads on.
        for path in site.segments(site.holds["old"]) + site.segments(further):
            path.unlink()
        assert site.repository.reaches(site.holds["old"])
        assert not site.repository.reaches(further)


def test_zz_removal(site: Site) -> None:
    """The last one: it takes the first backup away."""
    for name in ("../second", "archive", "marks-20200101T000000Z"):
        with pytest.raises(Refused, match="not the name of a backup"):
            site.repository.remove(name)
    site.repository.remove("20200101T000000Z-never" if site.kind == "folder" else "20200101-000000F")
    assert len(site.repository.listed()) == 2
    site.repository.remove(site.backups[0])
    site.repository.remove(site.backups[0])
    assert [each.id for each in site.repository.listed()] == site.backups[1:]
    assert site.restored(Origin())[0] == ["a", "b", "c"]
    with pytest.raises(Refused, match="no backup"):
        site.restored(Origin(at=site.moments["a"]))
