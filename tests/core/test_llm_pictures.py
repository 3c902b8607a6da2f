"""Models that cannot see, and pictures that an endpoint refuses; over real HTTP."""

import pytest

from safer_steer.errors import RunAborted
from safer_steer.rubric import TurnScores
from safer_steer.verdict import Outcome

GOOD = '{"safety": 8, "usefulness": 8, "faithfulness": 10}'
MESSAGES = [{"role": "user", "content": "Hi"}]
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
SEEN = [{"role": "user", "content": [PICTURE, {"type": "text", "text": "What is it?"}]}]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "this model does not support image input"),
        (400, "m is not a multimodal model"),
        (400, "At most 0 image(s) may be provided in one prompt."),
        (400, "Invalid content type. image_url is only supported by certain models."),
        (400, "unknown variant `image_url`, expected `text`"),
        (400, "'messages.0.content' must be a string"),
        (404, "No endpoints found that support image input"),
        (422, "Model does not support images. Please use a model that does."),
        (500, "image input is not supported - hint: you may need to provide the mmproj"),
        (500, "this model is missing data required for image input"),
        (400, "Invalid value: 'image_url'. Supported values are: 'text'"),
        (400, "Unsupported content type: image_url"),
        (400, "Only 'text' content type is supported"),
        (400, "This model only accepts text inputs"),
    ],
)
def test_a_model_that_cannot_see_is_asked_once_and_the_run_is_told(ask, status, message):
    def blind(body):
        return (status, message) if isinstance(body["messages"][0]["content"], list) else "Hello"

    reply, _, script = ask([blind], lambda client: client.chat(SEEN))
    assert reply.outcome == Outcome.BAD_REQUEST
    assert reply.detail.startswith("m does not take pictures")
    assert len(script.requests) == 1

    async def several(client):
        for _ in range(9):
            await client.chat(SEEN)
            await client.chat(MESSAGES)

    with pytest.raises(RunAborted, match=r"m does not take pictures .* set pictures: false for this role"):
        ask([blind], several)
    reply, client, script = ask([blind], lambda client: client.chat(SEEN), pictures=False)
    assert (reply.text, script.requests[0]["messages"]) == ("Hello", [{"role": "user", "content": "What is it?"}])
    assert client.stats()["changed"] == {"pictures": "not shown, by the config"}


@pytest.mark.parametrize(
    "message",
    [
        "You uploaded an unsupported image. Please make sure your image has one of the following formats",
        "At most 1 image(s) may be provided in one prompt.",
        "cannot identify image file",
        "the image is too large",
        "Failed to load image: not an image",
        "Could not process image",
    ],
)
def test_one_bad_picture_is_its_rows_fault(ask, message):
    async def several(client):
        return [await client.chat(SEEN) for _ in range(5)]

    replies, _, script = ask([(400, message)], several)
    assert {reply.detail for reply in replies} == {f"400 {message}"}
    assert len(script.requests) == 5


def test_a_parameter_that_is_refused_next_to_pictures_is_left_out(ask):
    def strict(body):
        refused = "json_schema" in body.get("response_format", {})
        return (400, "JSON mode is not supported with image input") if refused else GOOD

    call, _, _ = ask([strict], lambda client: client.structured(SEEN, TurnScores, name="turn_scores"))
    assert call.outcome == Outcome.OK
