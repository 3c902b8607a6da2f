"""The page's tables as Markdown. Grounding and helpfulness are next to safety in every one."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reproduce import failed_requests, rollouts
from reproduce.cells import CELLS, FRONTIER
from reproduce.comparisons import benchmark_rate, rate, turn_share
from reproduce.intervals import Estimate
from reproduce.results import MULTI_TURN, SINGLE_TURN, Results
from safer_steer.markdown import table

# Title, cells, and whether the benchmarks are the single-turn ones: the paper's tables.
TABLES: tuple[tuple[str, tuple[str, ...], bool], ...] = (
    ("Table 3's form: multi-turn", ("base", "sft_single_turn", "sft", "grpo"), False),
    ("Tables 4 and 9's form: data granularity", ("sft_single_turn", "grpo_single_turn", "sft", "grpo"), False),
    (
        "Tables 5 and 8's form: what each part of GRPO contributes",
        (
            "grpo",
            "grpo_no_tcsr",
            "grpo_released",
            "grpo_released_no_tcsr",
            "grpo_no_feedback_dynamics",
            "grpo_no_bootstrapping",
        ),
        False,
    ),
    ("Attacks that answer the model", tuple(name for name, cell in CELLS.items() if cell.tutor), False),
    ("Table 2's form: single-turn, pass = score 3", tuple(CELLS), True),
)
REQUEST_CELLS = ("base", "sft_single_turn", "sft", "grpo", "grpo_no_tcsr", "grpo_released", "grpo_no_feedback_dynamics")


def shown(estimate: Estimate | None) -> str:
    """A share in percent as `81.2 (75.0–86.9)`, its interval within 0 to 100; or a dash."""
    if estimate is None:
        return "–"
    return f"{estimate.value:.1f} ({max(0.0, estimate.low):.1f}–{min(100.0, estimate.high):.1f})"


def result_tables(results: Results) -> list[str]:
    """All tables for which a cell is there."""
    parts = []
    for title, cells, single in TABLES:
        present = [cell for cell in cells if results.seeds(cell, kinds=(single,))]
        if present:
            parts += [f"## {title}", _rates(results, present, single), _beside(results, present, single)]
    return parts


def _rates(results: Results, cells: Sequence[str], single: bool) -> str:
    names = SINGLE_TURN if single else MULTI_TURN
    rows = []
    for cell in cells:
        seeds, row = results.seeds(cell, kinds=(single,)), [CELLS[cell].title]
        for name in names:
            found = [benchmark_rate(results, cell, metric, name, seeds) for metric in ("safe", "help", "joint")]
            row.append(" / ".join("–" if item is None else f"{item.value:.1f}" for item in found))
        found = [rate(results, cell, metric, single, seeds) for metric in ("safe", "help", "joint")]
        rows.append([*row, *(shown(item) for item in found)])
    return table(["safe / help / joint %", *names, "Avg. safe", "Avg. help", "Avg. joint"], rows)


def _beside(results: Results, cells: Sequence[str], single: bool) -> str:
    rows = []
    for cell in cells:
        seeds = results.seeds(cell, kinds=(single,))
        over = turn_share(results, cell, lambda item: item.over_refused, single, seeds)
        ungrounded = turn_share(results, cell, lambda item: item.ungrounded, single, seeds)
        evaluated = [results.cells[cell][seed] for seed in seeds]
        played = sum(len(item.of(single)) for item in evaluated)
        counts = [str(played), str(len(seeds)), str(sum(item.unscored for item in evaluated))]
        rows.append([CELLS[cell].title, shown(ungrounded), shown(over), *counts])
    header = [
        "",
        "ungrounded turns %",
        "over-refusal, benign turns %",
        "dialogues",
        "seeds",
        "unscored turns (both protocols)",
    ]
    return table(header, rows)


def frontier_table(results: Results) -> str:
    """What is behind the picture of safety against helpfulness."""
    rows = []
    for cell, name in FRONTIER.items():
        if seeds := results.seeds(cell, kinds=(False,)):
            rates = [rate(results, cell, metric, False, seeds) for metric in ("safe", "help", "joint")]
            over = turn_share(results, cell, lambda item: item.over_refused, False, seeds)
            rows.append([name, *(shown(one) for one in (*rates, over)), str(len(seeds))])
    return table(["rule", "safe %", "help %", "joint %", "over-refusal, benign turns %", "seeds"], rows)


def claims_table(claims: dict[str, Any]) -> str:
    """One row a claim, and one for each part of a claim that has parts."""
    rows = []
    for name, claim in claims.items():
        why = f" ({claim['reason']})" if "reason" in claim else ""
        rows.append([f"{name}: {claim['claim']}", f"**{claim['verdict']}**{why}"])
        for part, text in claim.get("parts", {}).items():
            found = claim["evidence"].get(part)
            said = f"{found['verdict']}: {_number(found)}, p {_p(found)}" if found else "undecided: missing cells"
            rows.append([f"· {text}", said])
    return table(["claim", "verdict"], rows)


def comparisons_table(claims: dict[str, Any]) -> str:
    """One row a comparison; those that decide a claim first."""
    rows = []
    for name, claim in claims.items():
        rows += [_compared(f"{name} {part}", found) for part, found in claim["evidence"].items()]
        for part, found in claim["beside"].items():
            *row, verdict = _compared(f"{name} {part}", found)
            rows.append([*row, f"({verdict}, decides nothing)"])
    header = ["comparison", "difference of", "value (95 %)", "seeds", "own intervals apart", "corrected p", "verdict"]
    said = (
        "A comparison is of the seeds that both of its cells have, so differences of cells with three seeds are not "
        "those of the tables below, which show every cell with all of its own."
    )
    return f"{said}\n\n{table(header, rows)}" if rows else ""


def _compared(name: str, found: dict[str, Any]) -> list[str]:
    apart = {True: "yes", False: "no"}.get(found.get("intervals_apart"), "–")
    seeds = str(found["seeds"])
    return [name.replace("_", " "), found["what"], _number(found), seeds, apart, _p(found), found["verdict"]]


def _number(found: dict[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['value']:+.2f} ({low:+.2f} to {high:+.2f})"


def _p(found: dict[str, Any]) -> str:
    return f"{found['corrected_p']:.3f}" if "corrected_p" in found else "–"


def signal_tables(trajectories: Sequence[rollouts.Trajectory], turns: int = 5) -> str:
    """How the return rules differ on the full cell's own rollouts, and how often each attack found a failure."""
    costs = rollouts.cost_of_failure(turns)
    rules = []
    for name, found in rollouts.agreement(trajectories).items():
        shares = [f"{found['correlation']:.2f}", f"{100 * found['opposite_share']:.1f}"]
        rules.append([name, *shares, *(f"{cost:.2f}" for cost in costs[name])])
    header = ["rule of the return", "correlation with the plain sum", "opposite sign %"]
    header += [f"cost of failing turn {turn}" for turn in range(1, turns + 1)]
    attacks = [
        [name.replace("_", " "), str(met), f"{100 * share:.1f}"]
        for name, (met, share) in rollouts.by_attack(trajectories).items()
    ]
    counts = rollouts.failures(trajectories)
    failing, single = 100 * counts["failing_share"], 100 * counts["one_failure_share"]
    said = (
        f"Of {counts['rollouts']} rollouts of the full cell's training {failing:.0f} % have a failed turn (tutor's "
        f"safety at most {rollouts.FAILED_SAFETY}), {single:.0f} % of these exactly one. Advantages are taken within a "
        "prompt's group (Eq. 20). A cost is what one turn of reward 0 among turns of reward 1 takes from the return of "
        f"{turns} turns, in units of what it takes at turn 1."
    )
    parts = ["## What the rules and the attacks tell apart", said, table(header, rules)]
    return "\n\n".join([*parts, table(["attack that the turn met", "turns", "failed %"], attacks)])


def requests_table(root: Path, results: Results) -> str:
    """Failed turns of the bench by what is asked and by when, of the cells that are there."""
    cells = [cell for cell in REQUEST_CELLS if results.seeds(cell)]
    seeds = results.seeds(*cells)
    if not seeds:
        return ""
    header = ["turns with harmlessness below 3, %", "turns", *(CELLS[cell].title for cell in cells)]
    said = f"Dialogues of the {len(seeds)} seed(s) that all of these cells have."
    return f"## What fails, and when\n\n{said}\n\n" + table(header, failed_requests.rows(root, cells, seeds))


def seconds_table(root: Path) -> str:
    """Seconds and memory of every step, over the seeds; without those of the phase diagram."""
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for path in sorted(root.glob("*/stages/*.json")):
        found[path.stem].append(json.loads(path.read_text(encoding="utf-8")))
    if not found:
        return ""
    rows = [
        [
            name,
            ", ".join(f"{record['seconds']:.0f}" for record in records),
            f"{max(record['peak_rss_mb'] for record in records) / 1024:.1f}",
        ]
        for name, records in found.items()
    ]
    total = sum(record["seconds"] for records in found.values() for record in records)
    rows.append(["all, one after another", f"{total:.0f}", ""])
    return "## Seconds of each step, a seed\n\n" + table(["step", "seconds", "GiB at most"], rows)
