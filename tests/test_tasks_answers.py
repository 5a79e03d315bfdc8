"""Gold answers in all the forms that public sets keep them in; columns that no loader knows; files without answers."""

import datetime
import json
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swirl_env import make_tasks
from swirl_env.errors import ConfigError, DataNotFound
from swirl_env.tasks.files.answers import read_golds
from swirl_env.types import Task


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("columns", "answer", "aliases"),
    [
        ({"answer": "Rome"}, "Rome", ()),
        ({"answer": ["Rome", "Roma"]}, "Rome", ("Roma",)),
        ({"answer": "Rome", "aliases": ["Roma"], "answer_aliases": ["Urbs"]}, "Rome", ("Roma", "Urbs")),
        ({"golden_answers": ["Rome", "Roma"]}, "Rome", ("Roma",)),
        ({"answer": {"value": "Rome", "aliases": ["Roma"], "normalized_value": "rome", "type": "FreeForm"}}, "Rome", ("Roma",)),
        ({"Answer": {"Value": "Rome", "Aliases": ["Roma"]}}, "Rome", ("Roma",)),
        ({"target": "Rome"}, "Rome", ()),
        ({"target": ["Rome", "Roma"]}, "Rome", ("Roma",)),
        ({"gold": "Rome"}, "Rome", ()),
        ({"answers": [{"text": "Rome"}, {"text": "Roma"}]}, "Rome", ("Roma",)),
        ({"answers": {"text": ["Rome", "Rome", "Roma"], "answer_start": [1, 1, 1]}}, "Rome", ("Roma",)),
        ({"answers": [{"answer": "Rome", "aliases": ["Roma"]}]}, "Rome", ("Roma",)),
        ({"answers_objects": [{"spans": ["Rome"], "number": "", "date": {"day": "", "month": "", "year": ""}}]}, "Rome", ()),
        ({"answers_objects": [{"spans": [], "number": "12", "date": {}}]}, "12", ()),
        (
            {"answers_objects": [{"spans": [], "number": "", "date": {"day": "3", "month": "May", "year": "1900"}}]},
            "3 May 1900",
            (),
        ),
        ({"answers_objects": [{"spans": ["Rome", "Oslo"], "number": "", "date": {}}]}, "Rome, Oslo", ()),
        ({"possible_answers": '["Rome", "Roma"]'}, "Rome", ("Roma",)),
        ({"reward_model": {"style": "rule", "ground_truth": {"target": ["Rome", "Roma"]}}}, "Rome", ("Roma",)),
        ({"answer": '{"value": "Rome", "aliases": ["Roma"]}'}, "Rome", ("Roma",)),
        ({"answer": None, "answers": ["Rome"]}, "Rome", ()),
        ({"answer": "", "gold_answer": "Rome"}, "Rome", ()),
        ({"answer": 12}, "12", ()),
        ({"answer": False}, "no", ()),
        ({"answer": "[sic]"}, "[sic]", ()),
        ({"answer": "1 + 1 = 2\n####2"}, "2", ()),
        ({"answer": "so it is \\boxed{12}."}, "12", ()),
        ({"choices": ["Oslo", "Rome"], "answer": 1}, "Rome", ()),
        ({"choices": ["1", "2", "3"], "answer": 1}, "2", ()),
        ({"choices": ["1", "2", "3"], "answer": "1"}, "1", ()),
        ({"choices": [1, 2, 3], "answer": 1}, "1", ()),
        ({"choices": ["Oslo", "Rome"], "answer": "B"}, "Rome", ()),
        ({"choices": {"label": ["A", "B"], "text": ["Oslo", "Rome"]}, "answerKey": "B"}, "Rome", ()),
        ({"choices": {"label": ["1", "2"], "text": ["Oslo", "Rome"]}, "answerKey": "2"}, "Rome", ()),
        ({"choices": [{"label": "A", "text": "Oslo"}, {"label": "B", "text": "Rome"}], "answerKey": "B"}, "Rome", ()),
        ({"options": {"A": "Oslo", "B": "Rome"}, "answer": "B"}, "Rome", ()),
        ({"options": ["A)21", "B)21.5"], "correct": "B"}, "21.5", ()),
        ({"options": '["Oslo", "Rome"]', "answer": "B"}, "Rome", ()),
        ({"options": ["Oslo", "Rome"], "answer": "Bergen"}, "Bergen", ()),
        ({"options": {"temperature": 1}, "answer": 12}, "12", ()),
        ({"answer": "{x, y}"}, "{x, y}", ()),
        ({"answer": "[1, 2]"}, "[1, 2]", ()),
        ({"answer": "['Rome', 'Roma']"}, "Rome", ("Roma",)),
        ({"answer": "{'value': 'Rome', 'aliases': ['Roma']}"}, "Rome", ("Roma",)),
        ({"answers": '[{"text": "Rome"}, {"text": "Roma"}]'}, "Rome", ("Roma",)),
        ({"answers_spans": {"spans": ["Rome", "Roma"], "types": ["span", "span"]}}, "Rome", ("Roma",)),
        ({"output": [{"answer": "Rome", "provenance": []}, {"provenance": [{"title": "Rome"}]}]}, "Rome", ()),
        ({"solution": "So $x = \\boxed{2}$, thus \\boxed{\\frac{1}{2}}."}, "\\frac{1}{2}", ()),
        ({"answer": "1 + 1 = <<1+1=2>>2\n#### 1,072"}, "1,072", ()),
    ],
)
def test_every_form_of_a_gold_answer_is_read(columns, answer, aliases, tmp_path):
    task = make_tasks("jsonl", path=write(tmp_path / "set.jsonl", [{"question": "Where?", **columns}]))[0]
    assert (task.answer, task.aliases) == (answer, aliases)


@pytest.mark.parametrize("name", ["hotpotqa", "musique", "2wikimultihopqa", "beerqa", "cofca"])
def test_the_known_sets_read_the_same_forms(name, tmp_path):
    context = {"title": ["Rome"], "content": [["Rome is", "a city."]]}
    metadata = {"type": "bridge", "supporting_facts": {"title": ["Rome"], "sent_id": [0]}, "context": context}
    row = {"id": "a", "question": "Where?", "golden_answers": ["Rome"], "metadata": metadata}
    split = "test" if name == "cofca" else "dev"
    write(tmp_path / name / f"{split}.jsonl", [row])
    tasks = make_tasks(name, data_dir=str(tmp_path), split=split)
    assert (tasks[0].answer, tasks[0].meta["type"], len(tasks[0].evidence)) == ("Rome", "bridge", 1)
    assert [passage.text for passage in tasks.corpus] == ["Rome is a city."]


def test_number_sets_read_them_too(tmp_path):
    write(tmp_path / "gsm8k" / "test.jsonl", [{"question": "1+1?", "golden_answers": ["2"]}, {"question": "2+2?", "answer": 4}])
    assert [task.answer for task in make_tasks("gsm8k", data_dir=str(tmp_path))] == ["2", "4"]


@pytest.mark.parametrize("text", ["{'text': array(['Rome'], dtype=object)}", "{'a': Timestamp('2020')}", "[array([1])]"])
def test_a_record_that_was_printed_as_text_is_read_or_refused(text, tmp_path):
    with pytest.raises(ConfigError, match=r"row 1: answer: expected an answer; got a record that was printed as text"):
        len(make_tasks("jsonl", path=write(tmp_path / "set.jsonl", [{"question": "a?", "answer": text}])))


@pytest.mark.parametrize(
    ("row", "question"),
    [
        ({"Prompt": "Where?", "Answer": "Rome"}, "Where?"),  # FRAMES
        ({"input": "Where?", "output": [{"answer": "Rome"}]}, "Where?"),  # KILT
        ({"question": {"text": "Where?", "tokens": []}, "answer": "Rome"}, "Where?"),
        ({"body": "He has 7.", "question": "How many?", "answer": "7 (apples)"}, "He has 7. How many?"),  # ASDiv
        ({"Body": "He has 7", "Question": "How many?", "Answer": 7.0}, "He has 7. How many?"),  # SVAMP
        ({"prompt": [{"role": "user"}], "reward_model": {"ground_truth": "7"}, "extra_info": {"question": "How?"}}, "How?"),
    ],
)
def test_every_form_of_a_question_is_read(row, question, tmp_path):
    assert make_tasks("jsonl", path=write(tmp_path / "set.jsonl", [row]))[0].question == question


def test_columns_are_lost_only_if_they_are_read(tmp_path):
    row = {"id": "x", "qid": "y", "question": "a?", "query": "b?", "answer": "1 + 1\n#### 2", "passage": "text"}
    tasks = make_tasks("jsonl", path=write(tmp_path / "set.jsonl", [row]))
    assert tasks[0].meta == {"qid": "y", "query": "b?", "solution": "1 + 1", "split": "set"}
    assert [passage.text for passage in tasks.corpus] == ["text"]


def test_an_empty_id_is_none(tmp_path):
    rows = [{"id": "", "question": "a?", "answer": "x"}, {"id": " ", "question": "b?", "answer": "y"}]
    assert [task.id for task in make_tasks("jsonl", path=write(tmp_path / "set.jsonl", rows))] == ["set-0", "set-1"]


@pytest.mark.parametrize(
    "text",
    [
        '[{"question": "a?", "answer": "x"}]',
        '[\n {\n  "question": "a?",\n  "answer": "x"\n }\n]',
        '\ufeff{"question": "a?", "answer": "x"}\r\n\r\n',
        '{"question": "a?", "answer": "x", "score": NaN}',
    ],
)
def test_files_of_any_ending_are_read_by_what_they_hold(text, tmp_path):
    for name in ("set.jsonl", "set.json"):
        (tmp_path / name).write_text(text, encoding="utf-8", newline="")
        assert [task.answer for task in make_tasks("jsonl", path=str(tmp_path / name))] == ["x"]


def test_one_row_over_several_lines_is_a_row(tmp_path):
    (tmp_path / "set.json").write_text(json.dumps({"question": "a?", "answer": "x"}, indent=1))
    assert [task.answer for task in make_tasks("jsonl", path=str(tmp_path / "set.json"))] == ["x"]


def test_answers_in_bytes_and_maps_of_parquet_are_read(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    maps = pyarrow.array([[("value", "Rome")]], type=pyarrow.map_(pyarrow.string(), pyarrow.string()))
    for number, answers in enumerate(([b"Rome"], maps)):
        parquet.write_table(pyarrow.table({"question": ["a?"], "answer": answers}), tmp_path / f"{number}.parquet")
        assert make_tasks("jsonl", path=str(tmp_path / f"{number}.parquet"))[0].answer == "Rome"


def test_an_answer_of_an_unknown_form_is_an_error_and_never_a_printed_dict(tmp_path):
    path = write(
        tmp_path / "set.jsonl", [{"question": "a?", "answer": "x"}, {"question": "b?", "answer": {"nested": {"deep": 1}}}]
    )
    with pytest.raises(
        ConfigError, match=r"row 2: answer: expected an answer as text or under one of value, .*got the keys \['nested'\]"
    ):
        make_tasks("jsonl", path=path)[1]


@pytest.mark.parametrize(
    "option", ["id_field", "question_field", "answer_field", "aliases_field", "evidence_field", "titles_field"]
)
def test_a_named_column_that_no_row_has_is_refused(option, tmp_path):
    path = write(tmp_path / "q.jsonl", [{"question": "?", "answer": "Rome", "gold": "Oslo"}])
    with pytest.raises(
        ConfigError, match=r"expected a column 'golt', but no row has one; the columns are .* Did you mean 'gold'\?"
    ):
        make_tasks("jsonl", path=path, **{option: "golt"})[0]


def test_the_first_row_without_a_gold_answer_is_told(caplog, tmp_path):
    rows = [{"question": "a?", "answer": "b"}, *({"question": f"{i}?"} for i in range(3)), {"question": "?", "answerable": False}]
    assert [task.answer for task in make_tasks("jsonl", path=write(tmp_path / "q.jsonl", rows))] == ["b", None, None, None, None]
    assert [record.getMessage().partition("q.jsonl, ")[2] for record in caplog.records] == [
        "row 2 has no gold answer: its episodes are not graded. Other rows may lack theirs too."
    ]


def test_a_folder_is_no_file_of_questions(tmp_path):
    with pytest.raises(DataNotFound, match=r"it is a folder\. Name the file in it"):
        make_tasks("jsonl", path=str(tmp_path))


def test_the_index_of_no_choice_is_no_answer(tmp_path):
    with pytest.raises(ConfigError, match=r"answer: expected the text, the label or the index of one of 2 choices; got 5"):
        make_tasks("jsonl", path=write(tmp_path / "q.jsonl", [{"question": "?", "choices": ["Oslo", "Rome"], "answer": 5}]))[0]


@pytest.mark.parametrize(
    "rows", [[{"question": "a?", "solution": "b"}], [{"question": "a?", "answer": None}, {"question": "b?", "answer": " "}]]
)
def test_a_file_without_any_gold_answer_is_an_error_that_lists_the_columns(rows, tmp_path):
    with pytest.raises(ConfigError, match=f"expected gold answers.*the columns are {re.escape(str(sorted(rows[0])))}"):
        len(make_tasks("jsonl", path=write(tmp_path / "set.jsonl", rows)))
    write(tmp_path / "hotpotqa" / "dev.jsonl", rows)
    with pytest.raises(ConfigError, match="expected gold answers"):
        len(make_tasks("hotpotqa", split="dev", data_dir=str(tmp_path)))
    write(tmp_path / "gsm8k" / "test.jsonl", rows)
    with pytest.raises(ConfigError, match="expected gold answers"):
        len(make_tasks("gsm8k", data_dir=str(tmp_path)))


def test_questions_without_answers_are_read_when_that_is_meant(tmp_path):
    path = write(tmp_path / "set.jsonl", [{"question": "a?"}])
    assert make_tasks("jsonl", path=path, answer_field=None)[0].answer is None
    write(tmp_path / "hotpotqa" / "hotpot_test_fullwiki_v1.json", [{"_id": "t", "question": "a?"}])
    assert make_tasks("hotpotqa", split="test", data_dir=str(tmp_path))[0].answer is None


def test_columns_that_no_loader_knows_stay_in_meta(tmp_path):
    own = {"difficulty": 3, "tags": ["a", "b"], "source": {"url": "u"}, "gold": "other", "note": '["text"]', "none": None}
    path = write(tmp_path / "set.jsonl", [{"id": "x", "question": "a?", "answer": "b", **own}])
    task = make_tasks("jsonl", path=path)[0]
    assert task.meta == {**{key: value for key, value in own.items() if key != "none"}, "split": "set"}
    write(tmp_path / "musique" / "dev.jsonl", [{"id": "x", "question": "a?", "answer": "b", "my_column": 1}])
    assert make_tasks("musique", data_dir=str(tmp_path))[0].meta["my_column"] == 1
    write(tmp_path / "gsm8k" / "test.jsonl", [{"question": "a?", "answer": "#### 2", "my_column": [1]}])
    assert make_tasks("gsm8k", data_dir=str(tmp_path))[0].meta["my_column"] == [1]
    renamed = write(tmp_path / "renamed.jsonl", [{"q": "a?", "question": "original", "answer": "b"}])
    assert make_tasks("jsonl", path=renamed, question_field="q")[0].meta == {"question": "original", "split": "renamed"}


def test_columns_of_any_type_can_be_stored(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    values = {"when": datetime.date(2020, 5, 1), "raw": b"\xff", "missing": float("nan"), "nested": [{"x": [1.5, None]}]}
    table = pyarrow.table({"question": ["a?"], "answer": ["b"], **{key: [value] for key, value in values.items()}})
    parquet.write_table(table, tmp_path / "set.parquet")
    task = make_tasks("jsonl", path=str(tmp_path / "set.parquet"))[0]
    assert (task.meta["when"], task.meta["missing"], task.meta["nested"]) == ("2020-05-01", None, [{"x": [1.5, None]}])
    assert msgspec.json.decode(msgspec.json.encode(task), type=Task) == task


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_reading_answers_gives_texts_or_a_readable_error(value):
    try:
        golds, _ = read_golds({"answer": value}, "file")
    except ConfigError as error:
        assert "expected an answer" in str(error)
    else:
        assert all(isinstance(gold, str) and gold == gold.strip() != "" for gold in golds)
