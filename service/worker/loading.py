"""Models are loaded one at a time in the worker, the language model first.

A package that two threads import at once may be seen half made, and while transformers loads a model it sets torch's
default number format for all threads: what is embedded meanwhile would be computed in it.
"""

from __future__ import annotations

import threading

LOADING = threading.RLock()
"""Held while a model's packages are imported and the model is loaded."""
