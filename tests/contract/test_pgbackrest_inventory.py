"""What pgBackRest answers, read: shapes of 2.45 and of a stanza with two repositories."""

import doctest
from typing import Any

import pytest

from aiprod_ops.adapters.pgbackrest import inventory, program
from aiprod_ops.domain.backups import State
from aiprod_ops.errors import ConfigurationError, Failed, Held, OpsError, PermissionMissing, Refused, Unreachable

FULL, INCREMENTAL = "20261128-032457F", "20261128-032457F_20261128-040000I"
CIPHERS = {1: "none", 2: "aes-256-cbc"}


def backup(label: str, repository: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "label": label, "type": "full", "error": False, "prior": None, "reference": None,
        "archive": {"start": "000000010000000000000002", "stop": "000000010000000000000002"},
        "lsn": {"start": "0/2000028", "stop": "0/2000100"},
        "database": {"id": 1, "repo-key": repository}, "info": {"size": 22956726},
        "timestamp": {"start": 1795836297, "stop": 1795836301}, **more,
    }  # fmt: skip


def stanza(*backups: dict[str, Any], held: bool = False, codes: tuple[int, ...] = (0,)) -> list[dict[str, Any]]:
    keys = range(1, len(codes) + 1)
    return [{
        "name": "main", "backup": list(backups),
        "archive": [{"id": f"15-{key}", "database": {"id": 1, "repo-key": key}} for key in keys],
        "db": [{"id": 1, "repo-key": key, "system-id": 7713058141909913997, "version": "15"} for key in keys],
        "repo": [{"key": key, "cipher": CIPHERS[key], "status": {"code": code, "message": "said"}}
                 for key, code in zip(keys, codes, strict=True)],
        "status": {"code": max(codes), "lock": {"backup": {"held": held}}, "message": "said"},
    }]  # fmt: skip


def test_the_examples_hold() -> None:
    assert [doctest.testmod(module).failed for module in (inventory, program)] == [0, 0]


def test_a_backup_knows_its_repository() -> None:
    known = inventory.inventory(stanza(backup(FULL), backup(FULL.replace("03", "04"), 2), codes=(0, 0)), "main")
    first, second = known.kept
    assert (first.repository, first.archive, first.backup.key) == (1, "15-1", "")
    assert (second.repository, second.archive, second.backup.key) == (2, "15-2", "aes-256-cbc")
    assert first.backup.instance == "7713058141909913997"


def test_what_it_rests_on_and_what_it_is_called() -> None:
    more = {"type": "incr", "reference": [FULL], "annotation": {"label": "nightly"}}
    [_, kept] = inventory.inventory(stanza(backup(FULL), backup(INCREMENTAL, **more)), "main").kept
    assert (kept.backup.kind, kept.backup.rests_on, kept.backup.label) == ("incremental", (FULL,), "nightly")


def test_a_backup_of_damaged_pages_is_a_failed_one() -> None:
    [kept] = inventory.inventory(stanza(backup(FULL, error=True)), "main").kept
    assert kept.backup.state is State.FAILED
    answer = stanza(backup(FULL, error=True, **{"error-list": ["base/5/1", "base/5/2", "base/5/3", "base/5/4"]}))
    assert inventory.damaged_files(answer) == "base/5/1, base/5/2, base/5/3 …"


@pytest.mark.parametrize("code", [99, 6, 7])
def test_a_repository_that_could_not_be_read_is_no_empty_one(code: int) -> None:
    """Also where the other one could be."""
    with pytest.raises(Failed, match="cannot read its repository 2: said"):
        inventory.inventory(stanza(backup(FULL), codes=(0, code)), "main")


def test_a_stanza_that_is_nowhere() -> None:
    with pytest.raises(ConfigurationError, match="no stanza 'main' in its repository"):
        inventory.inventory(stanza(codes=(1, 3)), "main")
    with pytest.raises(ConfigurationError, match="knows no stanza"):
        inventory.inventory([], "main")
    assert inventory.inventory(stanza(codes=(2, 1)), "main").kept == ()


def test_what_is_not_in_the_list_runs_or_was_left() -> None:
    names = [FULL, "20261128-050000F", "20261128-060000F", "backup.info", "latest"]
    running = inventory.inventory(stanza(backup(FULL), held=True), "main")
    assert [(each.id, each.state) for each in inventory.unfinished(names, running)] == [
        ("20261128-050000F", State.FAILED),
        ("20261128-060000F", State.RUNNING),
    ]
    idle = inventory.inventory(stanza(backup(FULL)), "main")
    assert {each.state for each in inventory.unfinished(names, idle)} == {State.FAILED}


def test_two_segments_of_one_name_are_told() -> None:
    name = "0000000100000000/000000010000000000000002"
    listed = {f"{name}-{digit * 40}.lz4": {"time": 0} for digit in "ab"}
    with pytest.raises(Failed, match="two servers archive into one stanza"):
        inventory.stored_wal(listed)


@pytest.mark.parametrize(
    ("held", "kept"),
    [
        ({"repo-retention-full": "7", "repo-retention-full-type": "count"}, (7, None)),
        ({"repo-retention-full": "30", "repo-retention-full-type": "time"}, (None, 30 * 86400)),
        ({"repo-retention-full-type": "count"}, (None, None)),
    ],
)
def test_the_retention(held: dict[str, str], kept: tuple[int | None, float | None]) -> None:
    assert inventory.keeps(held) == kept


@pytest.mark.parametrize(
    ("code", "said", "kind"),
    [
        (26, "ERROR: [026]: checksum", Failed),
        (31, "ERROR: [031]: invalid option '--annotation'", ConfigurationError),
        (50, "ERROR: [050]: unable to acquire lock: Resource temporarily unavailable", Held),
        (50, "ERROR: [050]: unable to acquire lock: Permission denied", PermissionMissing),
        (56, "ERROR: [056]: unable to connect", Unreachable),
        (62, "ERROR: [062]: stop file exists", Refused),
        (104, "ERROR: [075]: repo1: cannot be expired\nERROR: [104]: expire command encountered 1 error(s)", Refused),
        (-9, "", Failed),
        (125, "ERROR: [125]: unknown", Failed),
    ],
)
def test_what_an_exit_code_means(code: int, said: str, kind: type[OpsError]) -> None:
    error = program.meaning("main", "backup", code, said)
    assert type(error) is kind
    assert error.message.startswith("pgbackrest backup failed (")


def test_a_file_that_is_missing_in_a_backup_is_damage() -> None:
    error = program.meaning("main", "restore", 55, "ERROR: [055]: unable to open missing file", reads="the backup 1F")
    assert type(error) is Failed
    assert error.message.startswith("the backup 1F cannot be restored: ")
