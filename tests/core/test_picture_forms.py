"""Every form in which rows hold a picture, and every spelling of a file's name; nothing is fetched."""

import base64
import io
import unicodedata
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from safer_steer.errors import ImageError
from safer_steer.images import decode_image
from safer_steer.picture_files import picture_file


def png() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((40, 30), 80).save(buffer, "PNG")
    return buffer.getvalue()


DATA = png()
TEXT = base64.b64encode(DATA).decode()
LINES = base64.encodebytes(DATA).decode()  # of 76 characters
SAFE = base64.urlsafe_b64encode(DATA).decode()


@pytest.mark.parametrize(
    "url",
    [
        f"data:image/png;base64,{TEXT}",
        f"data:image/png;base64,{LINES}",
        f"data:image/png;base64,{LINES.replace(chr(10), chr(13) + chr(10))}",
        f"data:image/png;base64,{TEXT.rstrip('=')}",
        f"data:image/png;base64,{SAFE}",
        f"data:image/png;base64,{SAFE.rstrip('=')}",
        f"DATA:image/png;base64,{TEXT}",
        f"Data:Image/PNG;Base64,{TEXT}",
        f" data:image/png;base64,{TEXT}\n",
        f"data:image/png;name=a.png;charset=utf-8;base64,{TEXT}",
        f"data:;base64,{TEXT}",
        f"data:base64,{TEXT}",
        f"data:image/png,{TEXT}",
        f"data:image/png;base64,{quote(TEXT, safe='')}",
        f"data:image/png,{quote(DATA)}",
        TEXT,
        LINES,
    ],
    ids=lambda url: url[:30].replace("\n", " "),
)
def test_data_urls_as_they_are_written(url):
    assert decode_image(url).tobytes() == decode_image(DATA).tobytes()


URL = f"data:image/png;base64,{TEXT}"
FORMS = [
    DATA,
    URL,
    {"bytes": DATA, "path": None},
    {"bytes": TEXT, "path": "x.png"},
    {"bytes": list(DATA), "path": float("nan")},
    {"bytes": b"", "path": "a.png"},
    list(DATA),
    {"bytes": URL},
    {"url": URL},
    {"type": "image_url", "image_url": {"url": URL, "detail": "high"}},
    {"type": "image_url", "image_url": URL},
    {"type": "input_image", "image_url": URL},
    {"type": "image", "image": URL},
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": TEXT}},
    {"inline_data": {"mime_type": "image/png", "data": TEXT}},
    {"type": "Buffer", "data": list(DATA)},
    {"image": {"bytes": DATA, "path": None}},
    [{"image": [{"bytes": DATA}]}],
    {"url": "a.png"},
    {"type": "image", "image": "a.png"},
    {"file_name": "a.png", "height": 30},
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: str(form)[:40])
def test_every_form_of_a_picture_is_read(form, tmp_path):
    (tmp_path / "a.png").write_bytes(DATA)
    assert decode_image(form, root=tmp_path).tobytes() == decode_image(DATA).tobytes()


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"url": x}, lambda x: {"image_url": {"url": x}}])
@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/a.png", "https://host/a.png", "HTTPS://host/a.png", "s3://b/a.png"]
)
def test_what_is_on_the_net_is_to_be_downloaded_first(wrap, url, tmp_path):
    with pytest.raises(ImageError, match="download it first"):
        decode_image(wrap(url), root=tmp_path)


def test_an_object_without_a_picture_names_its_fields():
    with pytest.raises(ImageError, match=r"no picture in an object with height, thumb; allowed: bytes, path, url"):
        decode_image({"thumb": "a.png", "height": 3})
    with pytest.raises(ImageError, match="2 pictures"):
        decode_image(["a.png", "b.png"])
    nested: dict = {"image": "a.png"}
    for _ in range(20):
        nested = {"image": nested}
    with pytest.raises(ImageError, match="nested"):
        decode_image(nested)


NAME = "Füße/Ää n.png"


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize(
    "spell",
    [
        lambda name, root: name,
        lambda name, root: unicodedata.normalize("NFC", name),
        lambda name, root: unicodedata.normalize("NFD", name),
        lambda name, root: f" {name}\t\n",
        lambda name, root: name.replace("/", "\\"),
        lambda name, root: f"file:{quote(name)}",
        lambda name, root: f"file://{quote(name)}",
        lambda name, root: f"file://{root}/{name}",
        lambda name, root: f"FILE://localhost{quote(str(root))}/{quote(unicodedata.normalize('NFC', name))}",
        lambda name, root: str(root / name),
        lambda name, root: f"./{name}",
    ],
)
def test_a_file_is_found_however_its_name_is_spelt(form, spell, tmp_path):
    path = tmp_path / unicodedata.normalize(form, NAME)
    path.parent.mkdir()
    path.write_bytes(DATA)
    assert picture_file(tmp_path, spell(unicodedata.normalize(form, NAME), tmp_path)).read_bytes() == DATA


def test_a_name_as_it_is_written_comes_first(tmp_path):
    for name in ("a.png", " a.png", "file:a.png", "a%20b.png"):
        (tmp_path / name).write_bytes(name.encode())
        assert picture_file(tmp_path, name).read_bytes() == name.encode()


@settings(max_examples=50)
@given(
    form=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.just(URL[:99]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["bytes", "data", "path", "url", "image", "type", "x"]), inner, max_size=3
            )
        ),
    )
)
def test_any_value_is_a_picture_or_an_image_error(form, tmp_path_factory):
    with pytest.raises(ImageError):
        decode_image(form, root=tmp_path_factory.getbasetemp())
