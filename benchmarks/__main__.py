"""Run benchmarks by name; without a name, all."""

import sys
from importlib import import_module

NAMES = (
    "api", "backup_test", "cache", "catalogue_size", "cli_start", "eight_indexes", "index_advice", "limits",
    "log_digest", "main_job", "switchover", "webhooks",
)  # fmt: skip


def main() -> None:
    chosen = sys.argv[1:] or NAMES
    if unknown := [name for name in chosen if name not in NAMES]:
        sys.exit(f"there is no benchmark {unknown[0]!r}; there are: {', '.join(NAMES)}")
    for name in chosen:
        import_module(f"benchmarks.{name}").run()


if __name__ == "__main__":
    main()
