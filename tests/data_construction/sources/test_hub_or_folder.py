"""A missing local folder is never taken for a data set of the hub."""

import pytest

from data_construction.sources import hub
from safer_steer.errors import UserError


def test_a_missing_folder_below_a_local_one_is_refused_but_hub_is_asked_by_name(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(hub, "_download", lambda path, hub_id, *_: asked.append(hub_id))
    with pytest.raises(UserError, match="hub:data/mine"):
        hub.locate("data/mine", ["*"])
    assert asked == []
    hub.locate("hub:data/mine", ["*"])
    hub.locate("org/mine", ["*"])
    assert asked == ["data/mine", "org/mine"]
