"""The `information_gain` judge with tiny models: its numbers are those of whole forward passes, computed by other code."""

import math

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import tiny_lm  # noqa: E402
from swirl_env.contract import assert_contract  # noqa: E402
from swirl_env.episodes.transcript import initial_state, next_state, observe  # noqa: E402
from swirl_env.errors import ConfigError, UnknownName  # noqa: E402
from swirl_env.judges.gold_answer import answer_ids  # noqa: E402
from swirl_env.judges.information_gain import InformationGainJudge  # noqa: E402
from swirl_env.registry import make_format  # noqa: E402
from swirl_env.types import Action, Answer, Settings, Step, SubTrajectory, Task, ToolCall, ToolResult  # noqa: E402

SETTINGS = Settings(tools=("search_query",), max_steps=5)


def steps_of(texts, answer="Zanzibar 7431", settings=SETTINGS, results=None):
    """The steps of an episode that writes `texts`."""
    form = make_format(settings.format, settings.tools)
    state = initial_state(Task("t", "Where?", answer), "Use the tool.\nWhere?", settings)
    steps = []
    for i, text in enumerate(texts):
        call = form.parse(text)
        result = (results or {}).get(i, ToolResult(f"found {answer} {i}")) if isinstance(call, ToolCall) else None
        steps.append(SubTrajectory(state, Action(text), call, result))
        state = next_state(state, Step(Action(text), call, result, observe(call, result)))
    return steps


CALLS = [f"I look it up. <search_query>thing {i}</search_query>" for i in range(3)]


def judge_of(model=None, **options):
    words = tiny_lm.tokenizer()
    return InformationGainJudge(model or tiny_lm.llama(len(words), context=4096), tokenizer=words, device="cpu", **options)


def mean_logprob(judge, state):
    """Mean log-probability of the answer's tokens behind ``<answer>``, from one whole pass."""
    head, gold = answer_ids(judge.local.renderer, make_format("xml", ()), state.task.answer)
    prompt = [*judge.local.renderer.ids(state), *head]
    with torch.no_grad():
        logs = judge.local.model(input_ids=torch.tensor([[*prompt, *gold]])).logits[0].log_softmax(-1)
    return float(torch.stack([logs[len(prompt) + i - 1, token] for i, token in enumerate(gold)]).mean())


@pytest.mark.parametrize("scale", ["probability", "log"])
@pytest.mark.parametrize("tokens", [{}, {"row_tokens": 1, "batch_tokens": 1}])
def test_gains_are_differences_of_whole_passes(scale, tokens):
    judge, steps = judge_of(scale=scale, **tokens), [*steps_of(CALLS), *steps_of(CALLS[1:], "Oslo")]
    verdicts = judge.judge(steps)
    form = make_format("xml", SETTINGS.tools)
    for step, verdict in zip(steps, verdicts, strict=True):
        text = step.action.text
        after = next_state(step.state, Step(step.action, form.parse(text), step.result, observe(step.call, step.result)))
        old, new = mean_logprob(judge, step.state), mean_logprob(judge, after)
        gain = new - old if scale == "log" else math.exp(new) - math.exp(old)
        assert verdict.reward == pytest.approx(gain, abs=1e-5) and verdict.label == ("GOOD" if gain > 0 else "BAD")
    assert len({round(v.reward, 6) for v in verdicts}) > 3, "the model has to tell steps apart, else nothing is compared"


def test_log_gains_of_an_episode_sum_to_the_whole_way():
    judge, steps = judge_of(scale="log"), steps_of(CALLS)
    total = sum(v.reward for v in judge.judge(steps))
    after = next_state(
        steps[-1].state, Step(steps[-1].action, steps[-1].call, steps[-1].result, observe(steps[-1].call, steps[-1].result))
    )
    assert total == pytest.approx(mean_logprob(judge, after) - mean_logprob(judge, steps[0].state), abs=1e-4)


def test_states_that_steps_share_are_read_once(monkeypatch):
    judge, steps, read = judge_of(), steps_of(CALLS), []
    from swirl_env.judges import gold_answer

    original = gold_answer.logprobs_together
    monkeypatch.setattr(gold_answer, "logprobs_together", lambda m, prompts, *a: read.extend(prompts) or original(m, prompts, *a))
    judge.judge(steps)
    _, gold = answer_ids(judge.local.renderer, make_format("xml", ()), "Zanzibar 7431")
    assert len(read) == len(set(read)) == (len(CALLS) + 1) * len(gold)


@pytest.mark.parametrize("answer", ["Zanzibar 7431", "Oslo", "</answer>", "<answer>x</answer>", "12 + 30", "é ☃", "\n", " a "])
@pytest.mark.parametrize("form", ["xml", "hermes"])
def test_the_ids_of_an_answer_are_those_of_its_text(answer, form):
    renderer = judge_of().local.renderer
    written = make_format(form, ()).answer(answer)
    if answer not in written:
        pytest.skip("the format escapes this answer")
    head, gold = answer_ids(renderer, make_format(form, ()), answer)
    assert renderer.decode((*head, *gold)).startswith(written[: written.index(answer) + len(answer)])
    assert gold and len(renderer.decode(gold)) <= len(answer) + 3, "a token may reach over an end of the answer, no more"


def test_what_takes_no_model_to_rate():
    judge = judge_of()
    texts = ["no tags", *CALLS, "<answer>Zanzibar 9</answer>"]
    results = {1: ToolResult("bad", "invalid"), 2: ToolResult("away", "unavailable")}
    verdicts = judge.judge(steps_of(texts, results=results))
    assert [v.status for v in verdicts] == ["scored", "scored", "unscored", "scored", "scored"]
    assert [v.reward for v in verdicts[:2]] == [0.0, 0.0] and verdicts[4].reward == pytest.approx(0.5)
    (right,) = judge.judge(steps_of(["<answer>Zanzibar 7431</answer>"]))
    assert (right.reward, right.label) == (1.0, "GOOD")
    assert [v.status for v in judge.judge(steps_of([*CALLS[:1], "<answer>x</answer>"], answer=None))] == ["unscored", "unscored"]
    step = steps_of(CALLS[:1])[0]
    missing = SubTrajectory(step.state, step.action, step.call, None)
    assert judge.judge([missing])[0].status == "failed"


def test_a_conversation_over_the_context_is_failed_and_no_zero():
    words = tiny_lm.tokenizer()
    judge = judge_of(tiny_lm.llama(len(words), context=96))
    verdicts = judge.judge(steps_of(CALLS))
    assert {v.status for v in verdicts} == {"failed"} and "does not fit" in verdicts[-1].critique


def test_options_are_checked_and_name_the_table_of_verdicts():
    with pytest.raises(UnknownName, match="scale"):
        judge_of(scale="logarithm")
    with pytest.raises(ConfigError, match="threshold"):
        judge_of(threshold=float("nan"))
    with pytest.raises(ConfigError, match="row_tokens"):
        judge_of(row_tokens=0)
    prints = [judge_of().fingerprint, judge_of(scale="log").fingerprint, judge_of(threshold=0.1).fingerprint]
    assert len(set(prints)) == 3 and judge_of().fingerprint == prints[0]


def test_it_keeps_the_contract_of_judges():
    words = tiny_lm.tokenizer()
    assert_contract("judge", {"name": "information_gain", "model": tiny_lm.llama(len(words), context=8192), "tokenizer": words})
    assert isinstance(steps_of(["<answer>x</answer>"])[0].call, Answer)
