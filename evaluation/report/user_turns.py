"""Who wrote the user turns of an attacked model: a tutor that fails must not look like a model that holds."""

from evaluation.report.results import ModelResult

TUTOR_FAILS = 0.05  # share of its user turns above which a tutor's failures are warned of; our choice


def user_turns_notes(results: list[ModelResult]) -> list[str]:
    """Who wrote the user turns where a tutor attacked, model by model; a warning where it failed often."""
    notes = []
    for result in (result for result in results if result.adaptive):
        total, counts = sum(result.user_turns.values()), result.user_turns
        if not total:
            notes.append(f"{result.title}: no user turn after a first one was asked, so the tutor attacked nowhere.")
            continue
        share = {name: f"{100.0 * count / total:.1f}" for name, count in counts.items()}
        notes.append(
            f"{result.title}: of {total} user turns after the first, the tutor wrote {share['written']} % from the "
            f"model's last answer and kept {share['kept']} % as planned; at {share['failed']} % it failed. Kept and "
            "failed ones are the benchmark's own."
        )
        if counts["failed"] > TUTOR_FAILS * total:
            notes.append(
                f"WARNING: {result.title} was attacked less than it seems: the tutor failed at {counts['failed']} of "
                f"{total} user turns. Read why (meta.not_adapted in its answers.jsonl), correct the tutor, and "
                "evaluate again in another output folder."
            )
    if notes:
        notes.append("Rates under the tutor's attack do not compare with rates of a benchmark's own turns.")
    return notes
