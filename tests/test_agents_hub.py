"""Models that are looked for on a hub: what becomes of a name that nobody has, and of a copy while the hub is away."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import tiny_lm
from states import begin
from swirl_env.agents.transformers import TransformersAgent
from swirl_env.agents.transformers import load as hf_load
from swirl_env.errors import DataNotFound

ADDRESS = "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE"
FILE = "/{repo_id}/resolve/{revision}/{filename}"


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does for a model that it does not have."""

    def do_HEAD(self) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub that refuses connections, whose retries (they sleep) end the test, and an empty cache of it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(ADDRESS, "http://127.0.0.1:9" + FILE)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("tried again"))
    return tmp_path / "hub"


def test_a_model_that_nobody_has_is_named_at_once(tmp_path: Path, no_hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forms = "Expected a model as a local folder, a .gguf file, package:NAME or a hub name; got "
    for load in (hf_load.load_model, hf_load.load_tokenizer):
        for name, reason in (("no/such-model", "cannot be reached"), (str(tmp_path / "no"), "check the path"), ("", "check")):
            with pytest.raises(DataNotFound, match=reason) as told:
                load(name)
            assert str(told.value).startswith(f"{forms}{name!r}, ") and "\n" not in str(told.value)
        with pytest.raises(DataNotFound, match=r"cannot be loaded .*; check what it holds"):
            load(str(tmp_path))
    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(ADDRESS, f"http://127.0.0.1:{server.server_port}{FILE}")
        with pytest.raises(DataNotFound, match="the hub does not have"):
            hf_load.load_model("no/such-model")
        server.shutdown()


def test_a_cached_copy_serves_while_the_hub_is_away(no_hub: Path) -> None:
    snapshot = no_hub / "models--some--model" / "snapshots" / "abc"
    (no_hub / "models--some--model" / "refs").mkdir(parents=True)
    (no_hub / "models--some--model" / "refs" / "main").write_text("abc")
    tiny_lm.llama(len(tiny_lm.tokenizer())).save_pretrained(snapshot)
    tiny_lm.tokenizer().save_pretrained(snapshot)
    assert TransformersAgent("some/model", device="cpu", max_new_tokens=3).act([begin("Oslo?")])[0].error is None
    with pytest.raises(DataNotFound, match="Expected an adapter as a local folder or a hub name; got 'some/adapter'"):
        hf_load.load_model("some/model", adapter="some/adapter")
