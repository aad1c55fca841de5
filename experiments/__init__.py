"""Experiments: one script a question, each `python -m experiments.NAME`."""

import os

# LAPACK's threads wait for one another busily. Beside the seeds that run on the other
# cores, an orthogonal initialiser then takes a hundred times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
