"""The configuration: what it names, and what it refuses."""

from pathlib import Path

import pytest

from aiprod_ops.config import load
from aiprod_ops.errors import ConfigurationError

TARGET = '[targets.here]\nprobe = "postgresql://monitor@db/app"\n'


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    file = tmp_path / "ops.toml"
    file.write_text(f'{TARGET}migrations = "versions"\nlog = "/var/log/postgresql"\n')
    target = load(str(file), {}).target("here")
    assert (target.migrations, target.log, target.copies) == (str(tmp_path / "versions"), "/var/log/postgresql", "")


def test_stored_backups_are_a_folder_or_a_stanza(tmp_path: Path) -> None:
    file = tmp_path / "ops.toml"
    file.write_text(f'{TARGET}backups = "stored"\narchive = "wal"\n')
    target = load(str(file), {}).target("here")
    assert (target.backups, target.archive) == (str(tmp_path / "stored"), str(tmp_path / "wal"))
    file.write_text(f'{TARGET}backups = "pgbackrest:main"\n')
    assert load(str(file), {}).target("here").backups == "pgbackrest:main"


@pytest.mark.parametrize(
    ("lines", "wrong"),
    [('backups = "pgbackrest:"', "names the stanza ''"), ('backups = "pgbackrest:--help"', "names the stanza '--help'"),
     ('backups = "pgbackrest:main"\narchive = "wal"', "has an `archive` beside the stanza main")],
)  # fmt: skip
def test_a_stanza_has_a_name_and_an_archive_of_its_own(tmp_path: Path, lines: str, wrong: str) -> None:
    file = tmp_path / "ops.toml"
    file.write_text(f"{TARGET}{lines}\n")
    with pytest.raises(ConfigurationError, match=wrong):
        load(str(file), {})


def test_a_service_file_needs_only_what_differs(tmp_path: Path) -> None:
    (tmp_path / "service.toml").write_text('[database]\nstatement_mean = "1 s"\n')
    file = tmp_path / "ops.toml"
    file.write_text(f'service = "service.toml"\n{TARGET}')
    promises = load(str(file), {}).promises
    assert (promises.get("database.statement_mean"), promises.get("evidence.history")) == ("1 s", "400 d")
    with pytest.raises(ConfigurationError, match=r"service\.toml has no value for 'database\.nothing'"):
        promises.get("database.nothing")


@pytest.mark.parametrize(
    "waiver",
    ['finding = "a"', 'finding = "a"\nuntil = 2027-01-01', 'finding = "a"\nuntil = "soon"\nreason = "b"',
     'finding = "a"\nuntil = 2027-01-01T12:00:00Z\nreason = "b"',
     'finding = ""\nuntil = 2027-01-01\nreason = "b"', 'finding = "a"\nuntil = 2027-01-01\nreason = "b"\nwhy = "c"'],
)  # fmt: skip
def test_a_waiver_without_an_end_or_a_reason_is_refused(tmp_path: Path, waiver: str) -> None:
    file = tmp_path / "ops.toml"
    file.write_text(f"{TARGET}\n[[waivers]]\n{waiver}\n")
    with pytest.raises(ConfigurationError, match="a waiver has"):
        load(str(file), {})


STANDING = {"runbook": '"take-backup"', "target": '"here"', "until": "2027-01-31", "by": '"ana"', "reason": '"OPS-7"'}


def with_standing(tmp_path: Path, table: dict[str, str]) -> Path:
    file = tmp_path / "ops.toml"
    lines = [f"{key} = {value}" for key, value in table.items()]
    file.write_text("\n".join([TARGET, "[[standing_approvals]]", *lines]))
    return file


def test_a_standing_approval_names_all_of_it(tmp_path: Path) -> None:
    (approval,) = load(str(with_standing(tmp_path, STANDING)), {}).standing_approvals
    assert str(approval) == "standing approval of ana until 2027-01-31: OPS-7"
    for key in STANDING:
        with pytest.raises(ConfigurationError, match=f"look at {key}"):
            load(str(with_standing(tmp_path, {k: v for k, v in STANDING.items() if k != key})), {})
    with pytest.raises(ConfigurationError, match="its other keys"):
        load(str(with_standing(tmp_path, {**STANDING, "parameters": '"any"'})), {})


@pytest.mark.parametrize("target", ["*", "her*", "elsewhere", ""])
def test_a_standing_approval_is_of_one_target_that_is_there(tmp_path: Path, target: str) -> None:
    with pytest.raises(ConfigurationError, match="standing approval"):
        load(str(with_standing(tmp_path, {**STANDING, "target": f'"{target}"'})), {})


MEMBER = 'members.pg1 = { api = "http://10.0.0.1:8008", postgres = "10.0.0.1:5432" }'
LOGIN = 'user = "ops"\npassword = "file:secret"'


def with_patroni(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "ops.toml"
    file.write_text("\n".join([TARGET, "[targets.here.patroni]", *lines]))
    return file


def test_a_cluster_of_patroni(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a secret\n")
    place = load(str(with_patroni(tmp_path, LOGIN, 'ca = "ca.pem"', MEMBER)), {}).target("here").patroni
    assert place is not None
    assert (place.members["pg1"].api, place.members["pg1"].postgres) == ("http://10.0.0.1:8008", "10.0.0.1:5432")
    assert (place.secret(), place.ca, place.watchdog) == ("a secret", str(tmp_path / "ca.pem"), False)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ((), "names no members"),
        (('members.pg1 = "http://10.0.0.1:8008"',), "'pg1' is not an API and a HOST:PORT"),
        ((MEMBER.replace(":5432", ""),), "'pg1' is not an API and a HOST:PORT"),
        ((MEMBER.replace("http://", ""),), "has the API '10.0.0.1:8008'"),
        ((MEMBER, 'user = "ops"'), "belong together"),
        ((MEMBER, 'user = "ops"', 'password = "plain"'), "no part of this file"),
        ((MEMBER, 'watchdog = "yes"'), "wrong watchdog"),
        ((MEMBER, 'token = "x"'), "wrong token"),
    ],
)
def test_a_cluster_of_patroni_that_is_not_whole_is_refused(tmp_path: Path, lines: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        load(str(with_patroni(tmp_path, *lines)), {})


def test_a_secret_of_patroni_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = load(str(with_patroni(tmp_path, LOGIN, MEMBER)), {}).target("here").patroni
    assert place is not None
    with pytest.raises(ConfigurationError, match="cannot be read"):
        place.secret()
    login = LOGIN.replace("file:secret", "env:PATRONI_PASSWORD")
    target = load(str(with_patroni(tmp_path, login, MEMBER)), {}).target("here")
    assert target.patroni is not None
    assert target.variables(acts=True) == ("PATRONI_PASSWORD",)
    assert target.variables(acts=False) == ()
    with pytest.raises(ConfigurationError, match="is empty: env:PATRONI_PASSWORD"):
        target.patroni.secret()
    monkeypatch.setenv("PATRONI_PASSWORD", "word")
    assert target.patroni.secret() == "word"


def test_the_url_of_a_redis(tmp_path: Path) -> None:
    path = tmp_path / "aiprod-ops.toml"
    for given, url in (('redis = "redis://cache:6379/1"', "redis://cache:6379/1"), ("", "")):
        path.write_text(f'[targets.here]\nprobe = "dbname=x"\n{given}\n')
        assert load(str(path), {}).target("here").redis_url() == url
    path.write_text('[targets.here]\nprobe = "dbname=x"\nredis = "file:secret/url"\n')
    target = load(str(path), {}).target("here")
    with pytest.raises(ConfigurationError, match=f"cannot be read from {tmp_path}/secret/url"):
        target.redis_url()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/url").write_text("redis://app:word@cache/0\n")
    assert target.redis_url() == "redis://app:word@cache/0"
    assert "word" not in repr(target)
