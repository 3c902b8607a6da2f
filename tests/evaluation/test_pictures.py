"""Pictures of an evaluation: read before any server starts, shown at one size to model, judge and report, and said."""

import base64
import io
import json

import pytest
from PIL import Image

from builders import dialogue
from evaluation import run as entry
from evaluation.config import EvaluationConfig
from evaluation.multi_turn.inference import ANSWERS, picture_size
from evaluation.report.results import load_result
from evaluation.report.tables import pictures_note
from safer_steer.config import load_config
from safer_steer.dialogue import Dialogue
from safer_steer.errors import UserError
from safer_steer.images import ImageStore
from safer_steer.picture_size import PictureSize
from safer_steer.store import read_jsonl, write_jsonl

NOBODY = "http://127.0.0.1:1/v1"
GOOD = json.dumps({"harmlessness": 3, "helpfulness": 3})
RELEASED = {"patch_size": 14, "merge_size": 2, "min_pixels": 3136, "max_pixels": 12845056}


@pytest.fixture
def config(tmp_path):
    """`config(url)`: a model and a judge behind an address, a benchmark of two dialogues."""
    (tmp_path / "bench").mkdir()
    store = ImageStore(tmp_path / "bench")
    picture = store.put(Image.effect_noise((1024, 768), 60).convert("RGB"))
    (tmp_path / "bench/images/broken.png").write_bytes(b"no picture")

    def make(url, models=None, images=("images/broken.png", picture)):
        rows = [dialogue(f"d{n}", *["?"] * (2 - n), kind="red_team", images=[image]) for n, image in enumerate(images)]
        write_jsonl(tmp_path / "bench/beaver.jsonl", rows)
        endpoint = f"{{model: m, base_url: '{url}', max_retries: 0}}"
        (tmp_path / "config.yaml").write_text(
            f"""
root: {tmp_path}
output: ${{root}}/evaluation
benchmarks: ["{tmp_path}/bench/*.jsonl"]
models: {models or f"{{one: {{title: One, endpoint: {endpoint}}}}}"}
max_pixels: 262144
sampling: {{max_tokens: 32}}
serving: {{max_model_len: 384}}
judge: {endpoint}
passing: {{bootstrap_resamples: 200}}
report: {{folder: "${{root}}/report"}}
"""
        )
        return load_config(EvaluationConfig, tmp_path / "config.yaml", [])

    return make


def sent(body):
    """The picture of a request's last message."""
    url = next(part["image_url"]["url"] for part in body["messages"][-1]["content"] if part["type"] == "image_url")
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def test_unusable_pictures_cost_no_start(config, capsys):
    """The port is closed: a start, or a question to it, would be another error."""
    with pytest.raises(UserError, match=r"2 of 2 dialogues have an unusable picture; .*d0.*; nothing was started"):
        entry.main(config(NOBODY, images=["images/broken.png", "images/none.png"]))
    with pytest.raises(UserError, match="no model server answers"):
        entry.main(config(NOBODY))
    assert "1 of 2 dialogues have an unusable picture; the first: d0:" in capsys.readouterr().err
    planned = str(entry.plan(config(NOBODY, images=["images/none.png", "images/broken.png"])))
    assert "2 dialogues, 3 turns, 1 without their pictures\n    d0: picture not found:" in planned


def test_model_judge_and_report_see_the_same_picture(config, serve, tmp_path):
    """One dialogue is rejected, the other is played with 1024 x 768 px made 588 x 420."""
    with serve(lambda body: GOOD if body.get("response_format") else "an answer") as server:
        found = config(server.url)
        entry.main(found)
    asked, judged = server.requests
    assert sent(asked).size == sent(judged).size == (588, 420)
    assert sent(asked).tobytes() == sent(judged).tobytes()
    folder = tmp_path / "evaluation/one"
    [row] = read_jsonl(folder / ANSWERS, Dialogue)
    with Image.open(folder / row.images[0]) as shown:
        assert shown.tobytes() == sent(asked).tobytes()
    assert json.loads((folder / "infer.json").read_text())["facts"]["config"]["max_pixels"] == 262144
    result = load_result(folder, "one", "One", found.passing)
    assert pictures_note([result]) == "Pictures: at most 262,144 px, for every model."
    other = load_result(folder, "two", "Two", found.passing)
    other.origin["max_pixels"] = 1003520  # as models.two.max_pixels would have it
    assert "different sizes" in pictures_note([result, other])
    assert "One 262,144 px, Two 1,003,520 px" in pictures_note([result, other])
    assert "Pictures: at most 262,144 px, for every model." in (tmp_path / "report/tables.md").read_text()


def test_the_picture_limit_reaches_the_server_and_agrees_with_the_checkpoint(config, tmp_path):
    """A released checkpoint takes the evaluation's limit; one that was trained with another is refused, unless the
    config says that this model differs.
    """
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub/preprocessor_config.json").write_text(json.dumps(RELEASED))
    found = config(NOBODY, f"{{base: {{checkpoint: {tmp_path}/hub}}}}")
    assert picture_size(found, "base") == (PictureSize(28, 3136, 262144), 262144)
    assert found.serving.service("base", "x", 3, 262144).vllm.max_pixels == 262144
    (tmp_path / "hub/preprocessor_config.json").write_text(json.dumps(RELEASED | {"max_pixels": 100352}))
    for step in (entry.plan, entry.main):
        with pytest.raises(UserError, match=r"max_pixels is 262144, but the checkpoint's processor says 100352"):
            step(found)
    said = config(NOBODY, f"{{base: {{checkpoint: {tmp_path}/hub, max_pixels: 50176}}}}")
    assert picture_size(said, "base") == (PictureSize(28, 3136, 50176), 50176)
    assert "base: pictures of at most 50,176 px" in str(entry.plan(said))


def test_small_pictures_are_enlarged_where_the_config_says_so(config):
    found = config(NOBODY)
    for least, area in ((None, 56 * 56), (114_244, 364 * 364)):
        size, _ = picture_size(found.model_copy(update={"min_pixels": least}), "one")
        assert size.fit(60, 60)[0] * size.fit(60, 60)[1] == area
    with pytest.raises(ValueError, match="min_pixels 200000: at most half of max_pixels 262144"):
        EvaluationConfig.model_validate(found.model_dump() | {"min_pixels": 200_000})
    released = load_config(EvaluationConfig, "configs/evaluation/steer_bench_released.yaml")
    assert (released.min_pixels, released.max_pixels) == (338**2, 512**2)
    assert released.sampling_of("base").repetition_penalty == 1.1
