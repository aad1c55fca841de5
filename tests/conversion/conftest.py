"""Keras runs on JAX here, which it reads once, when it is imported."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
