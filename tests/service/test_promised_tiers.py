"""Tiers and prices as `service.toml` has them."""

import itertools
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from aiprod_ops.config import Promises, Settings, load
from aiprod_ops.domain.tiers import Prices, crossed, month_after, month_of
from aiprod_ops.errors import ConfigurationError
from aiprod_ops.service.limiting.promised import prices, tiers

FREE = {
    "requests_per_minute": 10,
    "requests_per_day": 500,
    "concurrent_jobs": 5,
    "batch_size": 5,
    "monthly_cost_units": 600,
}


def shipped() -> Promises:
    return load(environ={"HOME": "/nowhere"}).promises


def test_each_tier_that_is_shipped_allows_more_than_the_one_before() -> None:
    found = tiers(shipped())
    assert list(found) == ["free", "pro", "enterprise", "premium"]
    figures = [[getattr(tier, name) for name in FREE] for tier in found.values()]
    assert all(a < b for lower, higher in itertools.pairwise(figures) for a, b in zip(lower, higher, strict=True))
    assert [(each.name, each.limit, each.window) for each in found["free"].quotas] == [
        ("minute", 10, 60),
        ("day", 500, 86_400),
    ]


def test_every_preset_has_a_price() -> None:
    assert set(prices(shipped()).per_second) == {"quick_social", "brand_campaign", "premium_spot"}


def test_a_tier_of_ones_own_takes_the_place_of_the_shipped_one(tmp_path: Path) -> None:
    own = tmp_path / "service.toml"
    lines = "\n".join(f"{name} = {value * 2}" for name, value in FREE.items())
    own.write_text(f"[tiers.free]\n{lines}\n[prices]\npremium_spot = 99\n")
    promises = Settings(state=tmp_path, targets={}, service=own).promises
    assert tiers(promises)["free"].requests_per_minute == 20
    assert tiers(promises)["pro"] == tiers(shipped())["pro"]
    assert prices(promises).cost_units("premium_spot", 2) == 198


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "no value for 'tiers'"),
        ({"tiers": {}}, "tiers is {}, expected a table"),
        ({"tiers": {"free": 3}}, "tiers.free is 3, expected a table"),
        ({"tiers": {"free": {**FREE, "burst": 1}}}, "has unknown keys: burst"),
        ({"tiers": {"free": {"batch_size": 5}}}, "lacks concurrent_jobs, monthly_cost_units"),
        ({"tiers": {"free": {**FREE, "batch_size": 0}}}, "tiers.free.batch_size is 0, expected a whole number from 1"),
        ({"tiers": {"free": {**FREE, "batch_size": True}}}, "batch_size is True"),
        ({"tiers": {"free": {**FREE, "batch_size": 2.5}}}, "batch_size is 2.5"),
        ({"tiers": {"free": {**FREE, "batch_size": 2**60}}}, "expected a whole number from 1 to 2\\^53"),
    ],
)
def test_what_makes_no_sense_is_told(values: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        tiers(Promises(values, "service.toml"))


@pytest.mark.parametrize("price", [-1, 0, 0.5, "1"])
def test_a_price_is_a_whole_number(price: object) -> None:
    with pytest.raises(ConfigurationError, match=r"prices\.quick_social is"):
        prices(Promises({"prices": {"quick_social": price}}, "service.toml"))


def test_a_preset_without_a_price_costs_an_error() -> None:
    with pytest.raises(ValueError, match="no price"):
        Prices({"quick_social": 1}).cost_units("other", 3)
    with pytest.raises(ValueError, match="-1 s of"):
        Prices({"quick_social": 1}).cost_units("quick_social", -1)


def test_months_follow_each_other() -> None:
    day, month = datetime(2024, 1, 1, tzinfo=UTC), date(2024, 1, 1)
    for number in range(800):
        while month_of(day + timedelta(days=number)) != month:
            month = month_after(month)
    assert month == date(2026, 3, 1)


def test_each_share_is_crossed_once_however_the_sum_grows() -> None:
    for step in (1, 7, 79, 101, 1_000):
        found = [each for before in range(0, 2_000, step) for each in crossed(before, before + step, 997)]
        assert found == [80, 100]
