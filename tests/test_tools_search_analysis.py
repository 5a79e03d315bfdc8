"""Search finds words however they are typed: accents, apostrophes, scripts with marks, scripts without blanks."""

import random
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import corpus_of
from swirl_env.tools.search.text import Analyzer
from swirl_env.tools.search.tool import Search

pytestmark = pytest.mark.usefixtures("own_cache")
PLAIN = Analyzer(stemmer="none", stopwords="none")


def finds(query: str, text: str) -> bool:
    """Whether a query finds a passage among others that share no word with it."""
    others = ["zebra crossing", "qqq", "中国", "привет мир"]
    return Search(corpus=corpus_of(*others, text)).run([query])[0].data["ids"][:1] == [f"p{len(others)}"]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("Beyonce", "Beyoncé Knowles"),
        ("BEYONCÉ", "beyonce\u0301"),
        ("Istanbul", "İstanbul"),
        ("istanbul", "ISTANBUL"),
        ("Diyarbakir", "Diyarbakır"),
        ("Lodz", "Łódź"),
        ("Soren", "Søren"),
        ("Aethelred", "Æthelred"),
        ("Strasse", "Straße"),
        ("Nguyen Phu Trong", "Nguyễn Phú Trọng"),
        ("Thor", "Þór"),
        ("Ελλαδα", "ΕΛΛΆΔΑ"),
        ("елка", "Ёлка"),
        ("Ｂｅｙｏｎｃｅ", "Beyoncé"),
        ("کتاب", "كتاب"),
        ("ایران", "ايران"),
        ("القاهره", "القاهرة"),
        ("احمد", "أحمد"),
    ],
)
def test_accents_and_strokes_are_folded(query: str, text: str) -> None:
    assert finds(query, text) and finds(text, query)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("O'Brien", "O’Brien"),
        ("O’Brien", "OʼBrien's"),
        ("Hawaii", "Hawaiʻi"),
        ("Hawai'i", "Hawaiʻi"),
        ("L'Oreal", "L´Oréal"),
        ("OBrien", "O'Brien"),
        ("Conor", "Conor＇s"),
        ("צהל", "צה״ל"),
        ('צה"ל', "צה״ל"),
        ("collegi", "col·legi"),
    ],
)
def test_apostrophes_are_folded(query: str, text: str) -> None:
    assert finds(query, text)


@pytest.mark.parametrize(
    "word",
    ["हिन्दी", "क्षत्रिय", "বাংলা", "தமிழ்", "മലയാളം", "සිංහල", "नहीं", "ગુજરાતી", "ਪੰਜਾਬੀ", "ꦗꦮ"],
)
def test_marks_stay_with_their_letters(word: str) -> None:
    assert PLAIN.terms(f"({word}), {word}!") == [unicodedata.normalize("NFC", word)] * 2


def test_joiners_and_optional_vowels_make_no_difference() -> None:
    assert PLAIN.terms("क्\u200dष") == PLAIN.terms("क्ष")
    assert PLAIN.terms("co\u00adoperate") == PLAIN.terms("cooperate")
    assert PLAIN.terms("شَمْس") == PLAIN.terms("شمس") and PLAIN.terms("שָׁלוֹם") == PLAIN.terms("שלום")
    # A voiced sound is another sound: marks of kana are no accents.
    assert PLAIN.terms("がき") == [unicodedata.normalize("NFC", "がき")] != PLAIN.terms("かき")


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("日本", "東京は日本の首都です"),
        ("首都", "東京は日本の首都です"),
        ("猫", "黒い猫がいる"),
        ("ケース", "iPhone用ケースです"),
        ("iphone", "iPhone用ケースです"),
        ("2020", "2020年"),
        ("서울", "서울은 한국의 수도이다"),
        ("北京大学", "他在北京大学学习"),
        ("กรุงเทพ", "กรุงเทพมหานครเป็นเมืองหลวง"),
        ("ｶﾞﾗｽ", "ガラスの靴"),
    ],
)
def test_scripts_without_blanks_are_found_inside_their_runs(query: str, text: str) -> None:
    assert finds(query, text)


def test_pairs_overlap_and_passages_also_have_single_characters() -> None:
    assert PLAIN.terms("東京都 tower 塔") == ["東京", "京都", "tower", "塔"]
    assert PLAIN.passage_terms("東京都 tower 塔") == ["東京", "京都", "東", "京", "都", "tower", "塔"]
    assert PLAIN.passage_terms("plain text") == PLAIN.terms("plain text")


def test_policies_see_the_original_text() -> None:
    text = "İstanbul’da Beyoncé: 東京は日本の首都です"
    result = Search(corpus=corpus_of(text)).run(["istanbulda"])[0]
    assert text in result.text


def test_splitting_at_blanks_leaves_words_as_they_are() -> None:
    assert Analyzer("whitespace", "none", "none").terms("Beyoncé O’Brien 東京は") == ["beyoncé", "o’brien", "東京は"]


def test_passages_of_an_older_analysis_are_not_misread(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    # The version names the folder, so an index made with other terms is never opened.
    monkeypatch.setattr("swirl_env.tools.search.tool.TOKENIZER_VERSION", 1)
    old = Search(corpus=corpus_of("kite"), cache_dir=str(tmp_path))
    before = {path.name for path in tmp_path.glob("search-v*/bm25-*")}
    monkeypatch.undo()
    new = Search(corpus=corpus_of("kite"), cache_dir=str(tmp_path))
    assert old._opened is not new._opened
    assert len({path.name for path in tmp_path.glob("search-v*/bm25-*")} - before) == 1


ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=60)


@given(ANY_TEXT, ANY_TEXT)
def test_terms_of_any_text_are_found_by_any_form_of_it(text: str, more: str) -> None:
    terms = PLAIN.terms(text)
    assert set(terms) <= set(PLAIN.passage_terms(text)), "a query finds the passage that it was copied from"
    assert all(term and not term.isspace() for term in terms)
    assert PLAIN.terms(f"{text} {more}") == terms + PLAIN.terms(f" {more}"), "a blank ends every word"
    if text.isascii():
        assert PLAIN.terms(text.upper()) == PLAIN.terms(text.lower()) == terms


def test_latin_text_with_random_accents_is_found_plain() -> None:
    rng = random.Random(0)
    letters = [c for c in map(chr, range(0xC0, 0x250)) if unicodedata.normalize("NFD", c)[0] in "abcdefghijklmnopqrstuvwxyz"]
    for _ in range(200):
        word = "".join(rng.choice(letters) for _ in range(8))
        assert PLAIN.terms(word) == ["".join(unicodedata.normalize("NFD", c)[0] for c in word)]
