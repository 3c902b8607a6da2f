"""The small version of `benchmarks.faulty_provider`: a real evaluation against a server that fails in every way."""

import json

from benchmarks import faulty_provider


def test_every_score_is_the_servers_every_loss_has_its_reason_and_another_score_would_be_seen(tmp_path):
    with faulty_provider.serving(faulty_provider.Provider()) as url:
        faulty_provider.run(faulty_provider.prepare(tmp_path, url, 40), tmp_path / "run")
    folder = tmp_path / "run" / "m"
    problems, losses = faulty_provider.wrong(folder, 40)
    assert problems == []
    assert faulty_provider.told(folder) == losses
    assert losses.total() > 5
    lines = (folder / "verdicts.jsonl").read_text().splitlines()
    place = next(index for index, line in enumerate(lines) if json.loads(line)["scores"])
    row = json.loads(lines[place])
    row["scores"]["harmlessness"] += 1 if row["scores"]["harmlessness"] < 3 else -1
    lines[place] = json.dumps(row)
    (folder / "verdicts.jsonl").write_text("\n".join(lines) + "\n")
    (problem,) = faulty_provider.wrong(folder, 40)[0]
    assert problem.startswith(f"{row['id']}: ")
