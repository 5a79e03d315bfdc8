"""What training runs are forked from: the server imports this once.

It holds what every run imports for seconds, hydra's plugins and grammar after a first composition, and the sources that keys of
warm starts are made of, parsed.
"""

import gc

import swirl_env.agents.transformers.small_llama
import swirl_env.config.app
import swirl_env.stages.train  # noqa: F401
from swirl_env.algos.embedded import get_setting
from swirl_env.algos.warm_start import WarmStart, fingerprint
from swirl_env.config.arguments import Arguments, compose_stage

compose_stage("train", Arguments(()))
fingerprint(get_setting("main"), 0, WarmStart())
gc.collect()
gc.freeze()  # left out of garbage collection, so that forks share its pages
