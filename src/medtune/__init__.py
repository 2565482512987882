"""medtune: from medical questions and answers and an open language model to a measured medical assistant."""

import os

# torch's CPU kernels keep what they compiled for every matrix shape, 0.7 MB each and by the thousand, and rows without
# padding have a new shape at every step: 1.9 GB after 40 steps become 1.0 at the same speed. Read at torch's import.
os.environ.setdefault("LRU_CACHE_CAPACITY", "32")
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
