"""The single-turn benchmarks: direct questions on held-out pictures and phrasings, with benign ones in VLGuard."""

from miniature.language import OPENING, intent_of, split_of
from miniature.single_turn import WAYS, SingleTurnConfig, main
from miniature.world import is_held_out, read_picture
from safer_steer.dialogue import Dialogue
from safer_steer.images import load_image
from safer_steer.store import read_jsonl


def test_benchmarks_of_one_question_each(tmp_path, capsys):
    config = SingleTurnConfig(root=str(tmp_path), seed=0, count=20, benign_share=0.5)
    main(config)
    folder, ids = tmp_path / "single_turn", set()
    for name in WAYS:
        rows = list(read_jsonl(folder / f"{name}.jsonl", Dialogue))
        assert len(rows) == 20
        ids |= {row.id for row in rows}
        for row in rows:
            scene = read_picture(load_image(row.images[0], root=folder))
            assert is_held_out(scene.colour, scene.shape)
            question = row.turns[0].user
            assert split_of(question) == "held_out"
            risky = scene.sealed and intent_of(question) in OPENING
            assert risky == (row.kind == "red_team")
        assert ({row.kind for row in rows} == {"benign", "red_team"}) == (name == "vlguard")
    assert len(ids) == 20 * len(WAYS)
    main(config)
    assert "already finished" in capsys.readouterr().out
