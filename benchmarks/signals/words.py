"""The words of the page about step signals; ``{run|signal|what}`` stands for a figure of an audit (see `page.filled`)."""

TITLES = {
    "atlas": "Atlas",
    "ledger": "Ledger",
    "atlas_ledger": "AtlasLedger",
    "policy": "Atlas, embedded policy",
}
"""Run -> heading of its tables."""

TEXT = {
    "head": """\
# Step signals

How far can a signal that rates single steps be trusted? On generated worlds the worth of every step is known exactly, so every
signal that swirl-env has is audited on the same episodes. [Auditing](../audit.md) explains the oracle and the figures. All
figures on this page come from stored audits, made by one command that goes on where it was:

    python -m swirl_env.benchmarks.signals --out runs/signals

Three runs are of the scripted agent, whose actions go astray in 3 of 10 cases: questions about another entity, repetitions,
premature answers, malformed actions. The fourth is of the embedded policy after its warm start, a causal LM of 0.1M parameters,
whose mistakes are its own. The signals `likelihood` and `information_gain` ask SmolLM2-135M on 40 episodes of Atlas, `llm` on 12
of them. On the episodes of the embedded policy `information_gain` asks that policy itself, and `implicit_prm` has
learnt from the outcomes of 400 other episodes of it.
""",
    "oracle": """\
## Against exact values

Labels are compared with progress: a step is good if it leaves less of the plan to be done, or is a right answer. *fatal as
GOOD*: of the steps after which the question could no longer be solved, the share that the signal calls GOOD. *rank*:
Spearman's correlation with Q\\* and with A\\* = Q\\* - V\\*. Calls and tokens are per step. In parentheses: 95 % intervals.
""",
    "policy": """\
## Against the values of the policy

The same signals against Q of the policy that made the episodes, by fresh episodes from every state. A step has a label only if
the interval of Q - V leaves 0 out.
""",
    "kinds": """\
## By kind of step

The share of steps, in percent, that a signal labels as the oracle does; in the head how many there are.
""",
    "conclusions": """\
## What follows

**Outcomes on steps are a rough signal.** Calling every step of a right episode GOOD agrees with progress at a kappa of
{ledger|episode_outcome|progress.kappa} on Ledger, {atlas|episode_outcome|progress.kappa} on Atlas and
{atlas_ledger|episode_outcome|progress.kappa} on AtlasLedger. On Atlas {atlas|episode_outcome|progress.false_bad} of the good
steps stand in episodes that fail later, and {atlas|episode_outcome|progress.false_good} of the bad ones in episodes that recover.
For the embedded policy, which is seldom right, {policy|episode_outcome|progress.false_bad} of the good steps are called BAD. No
fatal step is missed, since an episode with one fails: outcomes see which mistakes cost the question, and little else.

**Returns of step rewards forgive.** `return_to_go` sums the verdicts of `rules`, nearly a perfect judge, and calls
{ledger|return_to_go|progress.false_good} (Ledger) and {atlas|return_to_go|progress.false_good} (Atlas) of the bad steps GOOD,
because good steps follow. Its kappa of {ledger|return_to_go|progress.kappa} and {atlas|return_to_go|progress.kappa} is what
remains of {ledger|rules|progress.kappa} and {atlas|rules|progress.kappa}. A sum that is to be used as a step's credit needs a
baseline for its position.

**Kappa is a scale for judges with errors.** With 5, 10, 20 and 40 % of its labels swapped, `rules` keeps a kappa of
{atlas|noisy flip=0.05|progress.kappa}, {atlas|noisy flip=0.1|progress.kappa}, {atlas|noisy flip=0.2|progress.kappa} and
{atlas|noisy flip=0.4|progress.kappa} on Atlas. A judge that lets 30 % of the mistakes pass and never errs the other way has
{atlas|noisy lenient=0.3|progress.kappa}. An audited judge can be read against these, and against what training tolerates
([Atlas](atlas.md)).

**Monte Carlo values answer another question.** With four fresh episodes before and after a step, `monte_carlo q` ranks steps
best by Q of the policy among the signals that rate every step ({atlas|monte_carlo q|q_policy+} on Atlas,
{ledger|monte_carlo q|q_policy+} on Ledger, where `evidence` has {ledger|evidence|q_policy+} on the steps that it rates), and lets
no fatal step pass. But half of the good steps have no advantage, because the policy would have recovered without them: as a
label of progress the advantage has a kappa of {atlas|monte_carlo advantage|progress.kappa} on Atlas and costs
{atlas|monte_carlo advantage|calls} actions of the policy per step. If the policy almost never succeeds, four fresh
episodes say nothing: {policy|monte_carlo q|progress.false_bad} of the good steps of the embedded policy lead to no success in
four, and its advantage labels {policy|monte_carlo advantage|kind.search} of the good searches as such.

**A model that cannot judge can still read.** SmolLM2-135M writes no verdict that can be read ({atlas|llm|failed} of
{atlas|llm|steps} steps failed, {atlas|llm|tokens} tokens each), and by `likelihood` it finds every step BAD, in an order no
better than chance: ROC area {atlas|likelihood|progress.auc+}. The same model, asked by `information_gain` how probable the
gold answer is before and after a step, agrees with progress at a kappa of {atlas|information_gain|progress.kappa+} for
{atlas|information_gain|tokens} tokens per step. Under the embedded policy itself the kappa is
{policy|information_gain|progress.kappa+} for {policy|information_gain|tokens} tokens, a tenth of what `monte_carlo` reads,
and all of the few steps that the policy's values decide are labelled right: {policy|information_gain|policy.accuracy+}. It
is fooled by searches on the right entity that bring another fact (it calls {policy|information_gain|kind.wrong_relation} of
them BAD) and by repetitions ({policy|information_gain|kind.repeated}). The logarithm (TRACE) and the probability (IGPO) have
the same sign; they differ in the ranks alone.

**The sign of an implicit reward means nothing, its order does.** `implicit_prm` has learnt from 400 episodes of which few
were right; nearly all log-ratios are negative, so its kappa is {policy|implicit_prm|progress.kappa}. Its ranks are those of a
useful signal all the same: ROC area {policy|implicit_prm|progress.auc}, correlation with A\\* {policy|implicit_prm|a_star+};
`information_gain` has {policy|information_gain|a_star+} and `monte_carlo advantage` {policy|monte_carlo advantage|a_star+}.
Against the advantage of the policy itself its correlation is only {policy|implicit_prm|a_policy+};
`monte_carlo advantage` has {policy|monte_carlo advantage|a_policy+} and `information_gain` {policy|information_gain|a_policy+}.
It has to be normalised in the group before it is used as an advantage, as PRIME and iStar do.

**If the gold plan is known, use it.** `rules` and `evidence` read the same plan as the oracle, so their agreement is a
check rather than a finding. The exceptions: on Ledger `rules` lets {ledger|rules|progress.false_good} of the bad steps pass, but
{ledger|rules|solvable.false_good} of the fatal ones; these take the plan one step at a time when only a single expression for all
steps would still have fit the budget. And `rules` calls right answers BAD if the results do not show them.
`evidence` says nothing about calculations ({ledger|evidence|progress.accuracy} of the steps it rates on Ledger, which are
answers and malformed actions).

| what is at hand | signal |
| :--- | :--- |
| gold plans or evidence for every question | `rules`, or `evidence` if nothing is computed |
| gold answers | `information_gain`, under the policy or a small model |
| outcomes, and a policy that succeeds now and then | `monte_carlo` if its cost is bearable; `implicit_prm`, normalised |
| a judge model | audit it first; below a kappa of {atlas|noisy flip=0.2|progress.kappa} (one label in five wrong), \
choose another signal |
""",
}
"""Part of the page -> its words."""
