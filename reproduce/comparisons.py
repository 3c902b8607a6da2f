"""Numbers of cells and comparisons between them, each with its interval and its verdict. Pure functions of `Results`.

A rate is the paper's "Avg.": the unweighted mean over the five benchmarks of one kind, in percent. Single- and
multi-turn benchmarks are never in one number.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from reproduce.intervals import (
    Estimate,
    contrast,
    ratio,
    restricted_mean_difference,
    survived,
    two_level,
)
from reproduce.results import Evaluated, Played, Results

Verdict = Literal["holds", "does not hold", "undecided"]
Metric = Literal["safe", "help", "joint"]  # pass rates
PERCENT = (0.0, 100.0)
EITHER_WAY = (-100.0, 100.0)


@dataclass(frozen=True)
class Finding:
    """What one comparison says: its verdict and the numbers behind it."""

    verdict: Verdict
    evidence: dict[str, Any]


@dataclass(frozen=True)
class Gain:
    """`better` has a higher rate than `worse` on the same dialogues.

    Holds when the 95 % interval of the paired difference lies above 0 and, where `apart` is asked for, the two cells'
    own intervals do not overlap; does not hold when it lies below 0; else undecided. `flaps=False` leaves out the
    dialogues that ask for a flap.
    """

    better: str
    worse: str
    metric: Metric = "safe"
    single_turn: bool = False
    apart: bool = False
    flaps: bool = True

    @property
    def cells(self) -> tuple[str, ...]:
        """What has to be evaluated."""
        return self.better, self.worse

    def seeds(self, results: Results) -> list[int]:
        """Seeds that have what is compared."""
        return results.seeds(*self.cells, kinds=(self.single_turn,))

    def find(self, results: Results) -> Finding:
        """Compares over the seeds that both cells have."""
        results = results if self.flaps else results.without_flaps()
        seeds = self.seeds(results)
        pairs = [(results.cells[self.better][seed], results.cells[self.worse][seed]) for seed in seeds]
        gaps = [_gaps(better, worse, self.metric, self.single_turn) for better, worse in pairs]
        difference = two_level([contrast(groups, EITHER_WAY) for groups in gaps])
        own = {cell: rate(results, cell, self.metric, self.single_turn, seeds) for cell in self.cells}
        verdict = verdict_of(difference)
        separate = own[self.better].low > own[self.worse].high
        if verdict == "holds" and self.apart and not separate:
            verdict = "undecided"
        protocol = "single-turn" if self.single_turn else "multi-turn"
        what = f"{protocol} {self.metric} %, {self.better} − {self.worse}" + ("" if self.flaps else ", without flaps")
        evidence = {"what": what, **difference.to_dict(), "p": round(difference.p, 6)}
        evidence |= {cell: estimate.to_dict() for cell, estimate in own.items()} | {"intervals_apart": separate}
        return Finding(verdict, evidence)


@dataclass(frozen=True)
class Drop:
    """One cell's single-turn rate is higher than its multi-turn rate; judged as a `Gain` with intervals apart."""

    cell: str
    metric: Metric = "safe"

    @property
    def cells(self) -> tuple[str, ...]:
        """What has to be evaluated."""
        return (self.cell,)

    def seeds(self, results: Results) -> list[int]:
        """Seeds that have what is compared."""
        return results.seeds(*self.cells, kinds=(True, False))

    def find(self, results: Results) -> Finding:
        """Compares the two protocols within each seed."""
        seeds = self.seeds(results)
        numbers = []
        for seed in seeds:
            evaluated = results.cells[self.cell][seed]
            groups = _groups(evaluated.of(True), self.metric) + _groups(evaluated.of(False), self.metric, -1)
            numbers.append(contrast(groups, PERCENT))
        difference = two_level(numbers)
        single, multi = (rate(results, self.cell, self.metric, kind, seeds) for kind in (True, False))
        apart = single.low > multi.high
        verdict = verdict_of(difference)
        evidence = {"what": f"{self.metric} % of {self.cell}, single-turn − multi-turn", **difference.to_dict()}
        evidence |= {"single_turn": single.to_dict(), "multi_turn": multi.to_dict(), "intervals_apart": apart}
        return Finding("undecided" if verdict == "holds" and not apart else verdict, evidence)


@dataclass(frozen=True)
class LargerDrop:
    """`cell` loses more than `than` does from single questions to whole dialogues, on the same rows; no other verdicts
    than those of a `Gain`.
    """

    cell: str
    than: str
    metric: Metric = "safe"

    @property
    def cells(self) -> tuple[str, ...]:
        """What has to be evaluated."""
        return self.cell, self.than

    def seeds(self, results: Results) -> list[int]:
        """Seeds that have what is compared."""
        return results.seeds(*self.cells, kinds=(True, False))

    def find(self, results: Results) -> Finding:
        """Compares the two drops within each seed."""
        numbers = []
        for seed in self.seeds(results):
            one, other = (results.cells[cell][seed] for cell in self.cells)
            groups = _gaps(one, other, self.metric, True) + _gaps(other, one, self.metric, False)
            numbers.append(contrast(groups, EITHER_WAY))
        difference = two_level(numbers)
        what = f"single-turn − multi-turn {self.metric} %, {self.cell} − {self.than}"
        return Finding(verdict_of(difference), {"what": what, **difference.to_dict(), "p": round(difference.p, 6)})


@dataclass(frozen=True)
class LaterFailure:
    """`better` goes more turns without a failure than `worse`: restricted mean survival over the benchmarks' turns."""

    better: str
    worse: str

    @property
    def cells(self) -> tuple[str, ...]:
        """What has to be evaluated."""
        return self.better, self.worse

    def seeds(self, results: Results) -> list[int]:
        """Seeds that have what is compared."""
        return results.seeds(*self.cells, kinds=(False,))

    def find(self, results: Results) -> Finding:
        """Compares over the seeds that both cells have, on the dialogues that both have."""
        seeds = self.seeds(results)
        last = horizon(results)
        rows = []
        for seed in seeds:
            a, b = ({item.id: item for item in results.cells[cell][seed].of(False)} for cell in self.cells)
            shared = sorted(a.keys() & b.keys())
            rows.append(tuple([(side[key].last_turn, side[key].failed) for key in shared] for side in (a, b)))
        difference = two_level([restricted_mean_difference(a, b, last) for a, b in rows])
        evidence = {
            "what": f"turns without a failure out of {last}, {self.better} − {self.worse}",
            **difference.to_dict(),
        }
        for cell, column in zip(self.cells, (0, 1), strict=True):
            pooled = [row for pair in rows for row in pair[column]]
            evidence[cell] = first_failures(pooled, last)
        return Finding(verdict_of(difference), evidence)


def first_failures(rows: Sequence[tuple[int, bool]], last: int) -> dict[str, Any]:
    """Survival of pooled rows, turns 1 to `last`, and of those that failed how many did so first at each turn."""
    failed = [turn for turn, did in rows if did]
    return {
        "survival": [round(float(value), 3) for value in survived(rows, last)[1:]],
        "first_failures": [failed.count(turn) for turn in range(1, last + 1)],
        "mean_turn_of_first_failure": round(sum(failed) / len(failed), 2) if failed else None,
        "never_failed": len(rows) - len(failed),
    }


def verdict_of(difference: Estimate) -> Verdict:
    """Which side of 0 the whole interval is on."""
    if difference.low > 0:
        return "holds"
    return "does not hold" if difference.high < 0 else "undecided"


def horizon(results: Results) -> int:
    """The last turn that any dialogue of the results has."""
    turns = (item.last_turn for cell in results.cells.values() for seed in cell.values() for item in seed.of(False))
    return max((turn for turn in turns if turn), default=1)


def rate(results: Results, cell: str, metric: Metric, single_turn: bool, seeds: Sequence[int]) -> Estimate:
    """The cell's rate over the benchmarks of one kind, in percent."""
    groups = [_groups(results.cells[cell][seed].of(single_turn), metric) for seed in seeds]
    return two_level([contrast(group, PERCENT) for group in groups])


def benchmark_rate(
    results: Results, cell: str, metric: Metric, benchmark: str, seeds: Sequence[int]
) -> Estimate | None:
    """The cell's rate on one benchmark, in percent; None when a seed has no dialogue of it."""
    groups = [[x for x in results.cells[cell][seed].dialogues if x.benchmark == benchmark] for seed in seeds]
    if not all(groups):
        return None
    return two_level([contrast([(1.0, _values(group, metric))], PERCENT) for group in groups])


def turn_share(
    results: Results, cell: str, counted: Callable[[Played], int | None], single_turn: bool, seeds: Sequence[int]
) -> Estimate | None:
    """Share of scored turns, in percent, that `counted` counts; dialogues for which it gives None are left out."""
    numbers = []
    for seed in seeds:
        found = [(counted(item), item.scored) for item in results.cells[cell][seed].of(single_turn)]
        pairs = [(count, turns) for count, turns in found if count is not None]
        if not pairs:
            return None
        numbers.append(ratio(pairs))
    return two_level(numbers)


def _gaps(better: Evaluated, worse: Evaluated, metric: Metric, single_turn: bool) -> list[tuple[float, list[float]]]:
    """Of each benchmark its weight in the mean, and the differences of the dialogues that both played."""
    other = {item.id: item for item in worse.of(single_turn)}
    gaps: dict[str, list[float]] = defaultdict(list)
    for item in better.of(single_turn):
        if item.id in other:
            gaps[item.benchmark].append(_value(item, metric) - _value(other[item.id], metric))
    return [(1 / len(gaps), values) for values in gaps.values()]


def _groups(dialogues: Sequence[Played], metric: Metric, sign: int = 1) -> list[tuple[float, list[float]]]:
    groups: dict[str, list[Played]] = defaultdict(list)
    for item in dialogues:
        groups[item.benchmark].append(item)
    return [(sign / len(groups), _values(group, metric)) for group in groups.values()]


def _values(dialogues: Sequence[Played], metric: Metric) -> list[float]:
    return [_value(item, metric) for item in dialogues]


def _value(item: Played, metric: Metric) -> float:
    return 100.0 * getattr(item, metric)
