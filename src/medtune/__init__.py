"""medtune: from medical questions and answers and an open language model to a measured medical assistant."""

import logging
import os
import sys

# torch's CPU kernels keep what they compiled for every matrix shape, and rows without padding have a new shape at every
# step; benchmarks/train_profile.py prints what the bound saves. Read when torch is imported.
os.environ.setdefault("LRU_CACHE_CAPACITY", "32")
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")

# bitsandbytes and transformers fetch compiled code from the Hub and run it where the package `kernels` is installed.
os.environ.setdefault("USE_HUB_KERNELS", "0")
sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns at every import that it could not
