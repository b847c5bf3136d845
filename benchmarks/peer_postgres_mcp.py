"""Runs inside postgres-mcp's own environment: its Database Tuning Advisor on a workload, as a library.

`python peer_postgres_mcp.py DSN < workload.json` prints the CREATE INDEX statements as JSON. The workload is a list of
`{"query": …, "calls": …, "avg_exec_time": …}`; statements that the advisor fails on end the whole analysis, so each is
tried alone first and left out if it does.
Source: crystaldba/postgres-mcp, src/postgres_mcp/index/dta_calc.py, index_opt_base.py.
"""

import asyncio
import json
import logging
import sys
import time
import typing
from typing import Any

import typing_extensions

# On Python 3.11: the package needs 3.12 for nothing but this name.
if not hasattr(typing, "override"):
    typing.override = typing_extensions.override  # type: ignore[attr-defined]


async def main(dsn: str, workload: list[dict[str, Any]]) -> dict[str, Any]:
    from postgres_mcp.index.dta_calc import DatabaseTuningAdvisor
    from postgres_mcp.sql import DbConnPool, SqlDriver

    pool = DbConnPool(dsn)
    await pool.pool_connect()
    driver = SqlDriver(conn=pool)
    able: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for each in workload:
        found = await DatabaseTuningAdvisor(driver).analyze_workload(workload=[dict(each)])
        (failed if found.error else able).append(each)
    started = time.perf_counter()
    found = await DatabaseTuningAdvisor(driver, max_runtime_seconds=120).analyze_workload(
        workload=[dict(each) for each in able]
    )
    seconds = time.perf_counter() - started
    await pool.close()
    definitions = [each.definition for each in found.recommendations]
    return {"indexes": definitions, "seconds": seconds, "failed": len(failed), "error": found.error}


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    print(json.dumps(asyncio.run(main(sys.argv[1], json.load(sys.stdin)))))
