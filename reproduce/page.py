"""The page of a reproduction: claims, tables and curves of all that has been evaluated -> `miniature.md`,
`miniature_tables.md`, `images/`.
"""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

from reproduce import phase_page, phase_runs, pictures, rollouts, tables
from reproduce.cells import CELLS
from reproduce.claims import judge
from reproduce.results import Results, load
from safer_steer import plots
from safer_steer.store import write_atomic

FIRST_LINE = "**These are the miniature's numbers, not the paper's.**"
DOCS = Path("docs")
CONCLUSIONS = DOCS / "miniature_conclusions.md"  # written by hand
CAPTIONS = {
    "frontier": "Safety against helpfulness of each rule",
    "phase": "Up to which risk answering pays, by length and rule",
    "survival": "Survival (Figure 4's form): share of dialogues without a failure",
    "training": "Training of the GRPO cells",
}


def write_pages(root: Path, results: Results, claims: dict[str, Any]) -> list[Path]:
    """Writes `<root>/miniature.md`, the conclusions on one screen, `miniature_tables.md` behind it, and their pictures;
    returns the two pages' paths.
    """
    images = root / "images"
    images.mkdir(parents=True, exist_ok=True)
    seeds = sorted({seed for found in results.cells.values() for seed in found})
    points = phase_runs.read(root)
    drawn = {
        "frontier": pictures.frontier_figure(results),
        "phase": pictures.phase_figure(points),
        "survival": pictures.survival_figure(results),
        "training": pictures.training_figure(root, seeds),
    }
    shown = dict.fromkeys(drawn, "")
    for name, figure in drawn.items():
        if figure:
            plots.write(figure, images / f"miniature_{name}")
            shown[name] = f"![{CAPTIONS[name]}](images/miniature_{name}.png)"
    conclusions = [
        FIRST_LINE,
        "# The paper in miniature",
        "Every claim of the paper, tried by `bash scripts/reproduce.sh miniature` in the miniature world on held-out "
        "pictures and phrasings. All numbers: [tables](miniature_tables.md).",
        tables.claims_table(claims),
    ]
    if CONCLUSIONS.is_file():
        conclusions.append(CONCLUSIONS.read_text(encoding="utf-8").strip())
    conclusions.append("\n".join(shown[name] for name in ("frontier", "phase") if shown[name]))
    if shown["frontier"]:
        conclusions += ["## Safety against helpfulness", tables.frontier_table(results)]
    conclusions += ["## What a minimum buys", phase_page.words(), phase_page.exact_table()]
    if points:
        conclusions += [
            "Real runs (`bash scripts/reproduce.sh miniature --phase`), dots in the picture at the risk and the mean "
            "length of their STEER-RL dialogues, with the share of flap questions that are answered after GRPO with "
            "the mean | TCSR as released | the same with alpha 0.7. The risk is the share of flap questions whose "
            "flap is marked, counted in these dialogues: more than is set for the world, since a red-team script is "
            "kept only where the target leaks. Intervals are over seeds and dialogues and are cut at 0 and 100: one "
            "that reaches both says nothing.",
            phase_runs.runs_table(points),
        ]
    details = [
        FIRST_LINE,
        "# The paper in miniature: all tables",
        "Every cell, trained and evaluated in the miniature world, sampled at temperature 1. "
        "Rates are percent with 95 % intervals over seeds and dialogues (two-level bootstrap, "
        "`reproduce/intervals.py`); p values are from the same draws, corrected for the number of C4's parts (Holm). "
        "All seeds start from one Base, as the paper's runs do; a seed has its own "
        "pictures, questions, dialogues, SFT and GRPO. The conclusions: [miniature.md](miniature.md).",
        "## Claims",
        tables.comparisons_table(claims),
        *tables.result_tables(results),
    ]
    for name in ("survival", "training"):
        if shown[name]:
            details += [f"## {CAPTIONS[name]}", shown[name]]
    if trajectories := rollouts.read(root, seeds):
        details.append(tables.signal_tables(trajectories))
    details += [tables.requests_table(root, results), tables.seconds_table(root), origin(root)]
    pages = [root / "miniature.md", root / "miniature_tables.md"]
    for path, parts in zip(pages, (conclusions, details), strict=True):
        write_atomic(path, "\n\n".join(part for part in parts if part) + "\n")
    return pages


def copy_pages(pages: list[Path], folder: Path) -> list[Path]:
    """The pages and their pictures in another folder."""
    root = pages[0].parent
    for path in (*pages, *(root / "images").glob("miniature_*.*")):
        target = folder / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return [folder / page.name for page in pages]


def origin(root: Path) -> str:
    """Commit, versions and settings, from the records of the runs."""
    records = [*root.glob("*/*/run.json")]
    if not records:
        return ""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in records]
    commits = sorted({str(record["git_commit"]) for record in found})
    versions = sorted({f"{name} {version}" for record in found for name, version in record["versions"].items()})
    lines = ["## Made with", f"Commit {', '.join(commits)}; {', '.join(versions)}.", ""]
    for path in sorted(root.glob("seed_0/steps/*.json")):
        command = json.loads(path.read_text(encoding="utf-8"))["command"]
        lines.append(f"    {shlex.join(command)}")
    return "\n".join(lines)


def write_results(root: Path, seeds: int, write_docs: bool) -> tuple[dict[str, Any], list[Path]]:
    """Judges the claims and writes `claims.json` and the page from what has been evaluated below `root` of so many
    seeds, from 0.

    Returns:
        The claims, and the pages written: below `root`, and with `write_docs` below `docs/`.
    """
    results = load(root, [*CELLS], [*range(seeds)])
    claims = judge(results)
    write_atomic(root / "claims.json", json.dumps(claims, indent=1, ensure_ascii=False) + "\n")
    pages = write_pages(root, results, claims)
    return claims, pages + (copy_pages(pages, DOCS) if write_docs else [])


def say_results(root: Path, claims: dict[str, Any], pages: list[Path]) -> None:
    """Prints a line a claim, and where everything is."""
    for name, claim in claims.items():
        print(f"{name} {claim['verdict']}: {claim['claim']}" + (f" ({claim['reason']})" if "reason" in claim else ""))
    print(f"claims: {root}/claims.json; page: {', '.join(map(str, pages))}")
