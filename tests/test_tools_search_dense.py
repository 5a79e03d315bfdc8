"""The backends ``dense`` and ``hybrid`` of the search tool, with embedders whose vectors are known."""

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import corpus_of
from swirl_env.contract import assert_contract
from swirl_env.corpus import MemoryCorpus
from swirl_env.errors import ConfigError, DataNotFound, UnknownName
from swirl_env.registry import make_tool
from swirl_env.tools.search import dense
from swirl_env.tools.search.embedders import SentenceEmbedder, StaticEmbedder, load_embedder
from swirl_env.tools.search.hybrid import fuse
from swirl_env.tools.search.tool import Search
from swirl_env.types import Passage, Task

pytestmark = pytest.mark.usefixtures("own_cache")
WORDS = ["[UNK]", "red", "crimson", "kite", "gull", "blue", "sea", "the", ":"]


class Letters:
    """Embeds a text as how often it holds each letter; counts the passages it has embedded."""

    def __init__(self, fingerprint: str = "letters") -> None:
        self.fingerprint = fingerprint
        self.passages = 0

    def embed_passages(self, texts: Sequence[str]) -> Any:
        self.passages += len(texts)
        return np.stack([self.embed_query(text) for text in texts])

    def embed_query(self, text: str) -> Any:
        counts = np.array([text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"], dtype=np.float32)
        return counts / max(float(np.linalg.norm(counts)), 1.0)


def write_static(folder: Path, model2vec: bool = True) -> Path:
    """Writes a static model with random vectors; crimson has nearly the vector of red."""
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    table = np.random.default_rng(0).normal(size=(len(WORDS), 16)).astype(np.float32)
    table[2] = table[1] + 0.01
    if model2vec:
        tokenizer.save(str(folder / "tokenizer.json"))
        weights = np.linspace(0.5, 1.5, len(WORDS))
        save_file({"embeddings": table, "weights": weights}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"model_type": "model2vec", "normalize": True}))
    else:
        tokenizer.save(str(folder / "x_tokenizer_config.json"))
        save_file({"embedding.weight": table.astype(np.float16)}, folder / "x.safetensors")
    return folder


def test_dense_search_ranks_by_the_exact_inner_product() -> None:
    rng = np.random.default_rng(1)
    texts = ["".join(rng.choice(list("abcdef "), 30)) for _ in range(300)] + ["abc abc"] * 5
    embedder = Letters()
    tool = Search(corpus=corpus_of(*texts), backend="dense", embedder=embedder, top_k=20)
    for query in ("abc", "feed face", texts[7]):
        passages = np.stack([embedder.embed_query(f"Title{i}: {text}") for i, text in enumerate(texts)]).astype(np.float64)
        scores = passages @ embedder.embed_query(query).astype(np.float64)
        (result,) = tool.run([query])
        order = sorted(range(len(texts)), key=lambda i: (-round(scores[i], 5), i))[:20]
        assert [round(s, 5) for s in result.data["scores"]] == [round(scores[i], 5) for i in order]
        got = [int(name[1:]) for name in result.data["ids"]]
        assert {round(scores[i], 5) for i in got} == {round(scores[i], 5) for i in order} and len(set(got)) == 20


def test_equal_scores_keep_the_order_of_the_corpus() -> None:
    corpus = MemoryCorpus(Passage(f"p{i}", "", "kite" if i % 2 else "gull") for i in range(40))
    tool = Search(corpus=corpus, backend="dense", embedder=Letters(), top_k=6)
    assert tool.run(["kite"])[0].data["ids"] == [f"p{i}" for i in (1, 3, 5, 7, 9, 11)]


def test_hybrid_fuses_by_reciprocal_rank() -> None:
    fused = fuse([[(1, 9.0), (2, 8.0)], [(2, 0.1), (3, 0.0)]], 5)
    assert fused == [(2, pytest.approx(1 / 62 + 1 / 61)), (1, pytest.approx(1 / 61)), (3, pytest.approx(1 / 62))]
    texts = ["a red kite", "a crimson bird of prey", "red sea", "kite", "tan tire"]
    options: dict[str, Any] = {"corpus": corpus_of(*texts), "top_k": 5}
    words = make_tool("search", **options).run(["red kite"])[0].data["ids"]
    meaning = make_tool("search", backend="dense", embedder=Letters(), **options).run(["red kite"])[0].data["ids"]
    both = make_tool("search", backend="hybrid", embedder=Letters(), **options).run(["red kite"])[0].data
    totals = {name: sum(1 / (61 + ids.index(name)) for ids in (words, meaning) if name in ids) for name in {*words, *meaning}}
    assert both["ids"] == sorted(totals, key=lambda name: (-totals[name], name))
    assert both["scores"] == pytest.approx([totals[name] for name in both["ids"]])


def test_the_depth_of_fusion_is_an_option() -> None:
    texts = ["zebra kite", *["kite kite kite"] * 8, "ekit"]
    deep, shallow = (
        Search(corpus=corpus_of(*texts), backend="hybrid", embedder=Letters(), top_k=1, fusion_depth=depth) for depth in (20, 1)
    )
    assert deep._depth == 20 and shallow._depth == 1
    assert len(shallow.run(["kite"])[0].data["ids"]) == 1


@pytest.mark.parametrize("backend", ["dense", "hybrid"])
def test_queries_without_words_find_nothing_and_batches_equal_singles(backend: Any) -> None:
    tool = Search(corpus=corpus_of("red kite", "blue sea", "the gull"), backend=backend, embedder=Letters())
    for query in ("", "  ", "?!"):
        assert tool.run([query])[0].text == "No results: the query holds no words."
    queries = ["red", "the", "sea gull", "", "x" * 3000]
    assert tool.run(queries) == [tool.run([query])[0] for query in queries]
    assert tool.run(["the"])[0].data["ids"], "words that are too common for BM25 have a meaning too"


@pytest.mark.parametrize("backend", ["dense", "hybrid"])
def test_the_backends_pass_the_contract(backend: Any) -> None:
    assert_contract("tool", Search(corpus=corpus_of("red kite", "blue sea"), backend=backend, embedder=Letters()))


def test_passages_are_embedded_once_for_each_model_and_corpus(tmp_path: Path) -> None:
    options: dict[str, Any] = {"backend": "dense", "cache_dir": str(tmp_path)}
    for fingerprint, text, embedded in [("a", "red", 1), ("a", "red", 0), ("b", "red", 1), ("a", "blue", 1), ("b", "blue", 1)]:
        embedder = Letters(fingerprint)
        assert Search(corpus=corpus_of(text), embedder=embedder, **options).run([text])[0].data["ids"] == ["p0"]
        assert embedder.passages == embedded
    one, other = (Search(corpus=corpus_of("red"), embedder=Letters("a"), **options) for _ in range(2))
    assert one._opened is other._opened and not list(tmp_path.glob("search-v*/.parts-*"))


def test_a_build_that_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "_PART", 10)
    corpus = corpus_of(*(f"passage {'x' * i}" for i in range(35)))

    class Dies(Letters):
        def embed_passages(self, texts: Sequence[str]) -> Any:
            if self.passages >= 20:
                raise KeyboardInterrupt
            return super().embed_passages(texts)

    options: dict[str, Any] = {"corpus": corpus, "backend": "dense", "cache_dir": str(tmp_path), "top_k": 35}
    with pytest.raises(KeyboardInterrupt):
        Search(embedder=Dies(), **options)
    rest = Letters()
    whole = Search(embedder=rest, **options).run(["passage xx"])[0]
    assert rest.passages == 15
    assert whole == Search(embedder=Letters(), **{**options, "cache_dir": str(tmp_path / "other")}).run(["passage xx"])[0]


def test_a_damaged_index_is_built_again(tmp_path: Path) -> None:
    options: dict[str, Any] = {"corpus": corpus_of("red", "blue"), "backend": "dense", "cache_dir": str(tmp_path)}
    before = Search(embedder=Letters(), **options).run(["red"])[0]
    (vectors,) = tmp_path.glob("search-v*/dense-*/vectors.npy")
    vectors.write_bytes(vectors.read_bytes()[:-1])
    again = Letters()
    assert Search(embedder=again, **options).run(["red"])[0] == before and again.passages == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "dense"}, "needs a model"),
        ({"backend": "hybrid"}, "needs a model"),
        ({"embedder": Letters()}, "Leave one of them out"),
        ({"backend": "hybrid", "embedder": Letters(), "fusion_depth": 0}, "fusion_depth"),
        ({"backend": "dense", "embedder": 3}, "An embedder is"),
        ({"backend": "dense", "embedder": {"dtype": "float32"}}, "An embedder is"),
        ({"backend": "dense", "embedder": "package:no_such_package"}, "not installed"),
        ({"backend": "dense", "embedder": "/no/such/folder"}, "not a folder"),
        ({"backend": "dense", "embedder": {"model": "x", "dtyp": "y"}}, "Did you mean 'dtype'"),
        ({"backend": "dense", "embedder": {"model": "x", "dtype": "int4"}}, "No dtype named"),
    ],
)
def test_mistakes_get_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, DataNotFound, UnknownName), match=message):
        Search(corpus=corpus_of("red"), **options)


def test_a_folder_without_a_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match=r"Expected a model of sentence-transformers"):
        load_embedder(str(tmp_path))


@pytest.mark.parametrize("model2vec", [True, False])
def test_a_static_model_gives_means_of_token_vectors(tmp_path: Path, model2vec: bool) -> None:
    pytest.importorskip("tokenizers")
    pytest.importorskip("safetensors")
    embedder = load_embedder(str(write_static(tmp_path, model2vec)))
    assert isinstance(embedder, StaticEmbedder)
    table = embedder._table
    expected = (table[1] + table[3]) / 2
    np.testing.assert_allclose(embedder.embed_query("red zzz kite"), expected / np.linalg.norm(expected), atol=1e-6)
    assert not embedder.embed_query("zzz").any()
    texts = ["red kite", "", "blue"]
    np.testing.assert_array_equal(embedder.embed_passages(texts), np.stack([embedder.embed_query(text) for text in texts]))
    tool = Search(corpus=corpus_of("the blue sea", "a crimson kite"), backend="dense", embedder=str(tmp_path), top_k=1)
    assert tool.run(["red"])[0].data["ids"] == ["p1"], "found by meaning: no passage holds the word"
    assert pickle.loads(pickle.dumps(tool)).run(["red"]) == tool.run(["red"])
    before = embedder.fingerprint
    write_static(tmp_path / "same", model2vec)
    assert load_embedder(str(tmp_path / "same")).fingerprint == before
    (table_file,) = (tmp_path / "same").glob("*.safetensors")
    content = bytearray(table_file.read_bytes())
    content[-1] ^= 1
    table_file.write_bytes(bytes(content))
    assert load_embedder(str(tmp_path / "same")).fingerprint != before


def test_a_static_model_agrees_with_the_library_that_wrote_it(tmp_path: Path) -> None:
    library = pytest.importorskip("model2vec")
    model = library.StaticModel.from_pretrained(write_static(tmp_path), normalize=True)
    embedder = load_embedder(str(tmp_path))
    for text in ("red kite", "the blue sea zzz gull", "crimson"):
        np.testing.assert_allclose(embedder.embed_query(text), model.encode(text), atol=1e-5)


@pytest.mark.slow
def test_a_model_of_sentence_transformers_agrees_with_the_library(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer import modules
    from transformers import BertConfig, BertModel, BertTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS[1:]]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab_file=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "bert")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(vocabulary), **sizes)).save_pretrained(tmp_path / "bert")
    body = modules.Transformer(str(tmp_path / "bert"))
    model = library.SentenceTransformer(modules=[body, modules.Pooling(16)], device="cpu", prompts={"query": "the sea: "})
    model.save(str(tmp_path / "model"))
    embedder = load_embedder({"model": str(tmp_path / "model"), "device": "cpu"})
    assert isinstance(embedder, SentenceEmbedder)
    np.testing.assert_allclose(embedder.embed_query("red"), model.encode_query(["red"], normalize_embeddings=True)[0], atol=1e-5)
    passages = ["red kite", "the blue sea"]
    wanted = model.encode_document(passages, normalize_embeddings=True)
    np.testing.assert_allclose(embedder.embed_passages(passages), wanted, atol=1e-5)


def test_the_comparison_of_backends_counts_evidence(capsys: pytest.CaptureFixture[str]) -> None:
    from swirl_env.benchmarks.retrieval import Arm, measure, table

    class Two:
        corpus, split, tools, max_steps = corpus_of("red kite", "blue sea", "gull"), "test", ("search",), 2
        rows = (Task("a", "red kite", evidence=("p0", "p2")), Task("b", "blue sea", evidence=("p1",)), Task("c", "no evidence"))

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, i: int) -> Task:
            return self.rows[i]

    score = measure(Two(), Arm("words", {"backend": "bm25s"}))
    assert score.recall == (0.75, 0.75, 0.75)
    assert "| words | 0.750 | 0.750 | 0.750 |" in table([score])
