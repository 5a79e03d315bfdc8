"""The logs of a training run, as somebody may have edited or damaged them."""

import json

import pytest

from swirl_env.algos.run_logs import TIMING, read_log
from swirl_env.errors import StoreError

ROWS = [{"update": 1, "reward": 0.5}, {"update": 2, "reward": None}]


@pytest.mark.parametrize("name", ["metrics.jsonl", TIMING])
def test_whole_rows_are_read_and_a_torn_last_one_is_left_out(tmp_path, name):
    assert read_log(tmp_path, name) == []
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / name).write_text(text + '{"update": 3, "rew')
    assert read_log(tmp_path, name) == ROWS


@pytest.mark.parametrize("line", ["garbage", "3", "[]", "{}", '{"update": "1"}', '{"update": null}', "[" * 9999, "", "\x00"])
def test_a_damaged_row_is_named_with_the_command_that_deletes_it(tmp_path, line):
    file = tmp_path / "metrics.jsonl"
    file.write_text(f"{json.dumps(ROWS[0])}\n{line}\n{json.dumps(ROWS[1])}\n")
    with pytest.raises(StoreError, match=r"metrics.jsonl, line 2 is damaged.*sed -i.bak 2d") as error:
        read_log(tmp_path)
    assert "\n" not in str(error.value)
