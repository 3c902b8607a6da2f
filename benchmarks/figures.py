"""The form in which every benchmark writes its figures: ours, the alternative measured in the same run, their ratio."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Figure:
    """One comparison.

    Attributes:
        name: what is compared.
        unit: of both numbers.
        ours: our number.
        against: what the other number is of.
        other: that number, measured in the same run.
        target: what the ratio must reach (`better` "higher") or must not exceed ("lower"); None: shown only.
        better: which way is better.
        ratio: ours / other, or the median over rounds where a benchmark has several.
    """

    name: str
    unit: str
    ours: float
    against: str
    other: float
    target: float | None = None
    better: Literal["higher", "lower"] = "higher"
    ratio: float | None = None

    def ratio_or_quotient(self) -> float:
        """The ratio, by default ours / other; 0 of 0 is 1."""
        if self.ratio is not None:
            return self.ratio
        return self.ours / self.other if self.other else float(self.ours == self.other)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        ratio = self.ratio_or_quotient()
        return ratio >= self.target if self.better == "higher" else ratio <= self.target

    def as_dict(self) -> dict[str, Any]:
        """Plain data, with the ratio and whether the target is met."""
        return asdict(self) | {"ratio": round(self.ratio_or_quotient(), 4), "met": self.met}


def write_figures(
    path: Path | None, benchmark: str, figures: Iterable[Figure], *, settings: dict[str, Any], details: Any = None
) -> int:
    """Writes one benchmark's figures as JSON.

    Args:
        path: the file; None: nothing is written.
        benchmark: the benchmark's name.
        figures: its comparisons.
        settings: the sizes that it ran with.
        details: numbers of its own form.

    Returns:
        1 when a target is missed, else 0: the exit code.
    """
    found = [figure.as_dict() for figure in figures]
    if path:
        load = [round(number, 1) for number in os.getloadavg()]
        record = {"benchmark": benchmark, "settings": settings, "load_average": load, "figures": found}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record | {"details": details}, indent=1) + "\n", encoding="utf-8")
    return int(any(figure["met"] is False for figure in found))


def peak_mib() -> float:
    """This process's largest resident size so far, in MiB; `getrusage` would count the parent's in (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
