"""Scores questions without a gold answer, and the code of a page, with Inspect's own runner and mock model. Prints JSON."""

import json
import math
import sys
from pathlib import Path

from inspect_ai import Task as InspectTask
from inspect_ai import eval as run_eval
from inspect_ai.agent import react
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.tool import think

from swirl_env.env import build_engine
from swirl_env.interop.inspect import judged, make_dataset, make_task, make_tools
from swirl_env.types import Task

page, folder = Path(sys.argv[1]), sys.argv[2]


def call(name, arguments):
    return counted(ModelOutput.for_tool_call("mockllm/model", name, arguments))


def message(text):
    return counted(ModelOutput.from_content("mockllm/model", text))


def counted(output):
    output.usage = ModelUsage()  # else the mock model counts tokens with a tokenizer that it downloads
    return output


def logs_of(task, outputs):
    model = get_model("mockllm/model", custom_outputs=outputs)
    (log,) = run_eval(task, model=model, log_dir=folder, display="none", max_samples=1)
    assert log.status == "success", log.error
    return log


engine = build_engine(
    [Task("open", "What do you make of it?")], tools=["calculator"], judge=lambda step: None, format="native", max_steps=4
)
counting = build_engine(
    [Task("q", "What is 6 times 7?", "42")], tools=["calculator"], judge=lambda step: 1.0 if step.result else 0.5, format="native"
)
log = logs_of(make_task(engine), [call("math_exp", {"query": "6*7"}), message("hm"), call("answer", {"answer": "much"})])
score = log.samples[0].scores["judged"]
code = page.read_text().split("```python\n")[1].split("```")[0]
names = {}
exec(code, names)  # the documentation's own code
task = names["with_react"]()
task.dataset = task.dataset[:1]
by_page = logs_of(task, [call("math_exp", {"query": "6*7"}), call("math_exp", {}), message("<answer>0</answer>")])

solved = InspectTask(
    dataset=make_dataset(counting), solver=react(tools=[*make_tools(counting), think()], submit=False), scorer=judged(counting)
)
thinking = logs_of(solved, [call("think", {"thought": "hm"}), call("math_exp", {"query": "6*7"}), message("<answer>0</answer>")])
written = '<tool_call>{"name": "math_exp", "arguments": {"query": "6*7"}}</tool_call>'
as_text = logs_of(make_task(counting), [message(written), message("<answer>42</answer>")])
print(
    json.dumps(
        {
            "nan": math.isnan(score.value),
            "reason": score.reason,
            "explanation": score.explanation,
            "turns": score.metadata["turn_rewards"],
            "answer": score.answer,
            "unscored": log.results.scores[0].unscored_samples,
            "roles": [one.role for one in log.samples[0].messages],
            "thinking": thinking.samples[0].scores["judged"].metadata["turn_rewards"],
            "as_text": as_text.samples[0].scores["judged"].metadata["turn_rewards"],
            "react": by_page.samples[0].scores["judged"].metadata["steps"],
            "shown": [one.error.message if one.error else one.text for one in by_page.samples[0].messages if one.role == "tool"],
        }
    )
)
