"""What training runs are forked from: the server imports this once.

It holds what every run imports for seconds, and the sources that keys of warm starts are made of, parsed.
"""

import transformers.models.llama.modeling_llama  # noqa: F401

import swirl_env.config.app
import swirl_env.stages.train  # noqa: F401
from swirl_env.algos.embedded import get_setting
from swirl_env.algos.warm_start import WarmStart, fingerprint

fingerprint(get_setting("main"), 0, WarmStart())
