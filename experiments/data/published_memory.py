"""How long untrained cells remember: the table that Muccino (2019) published.

Of his eight rows of input features those are here that were read off his pictures.
"""

#: Columns of the table.
HIDDEN_FEATURES = (1, 2, 4, 8, 16, 32, 64, 128)
#: Rows of the author's table; `MEANS` has some of them.
IN_FEATURES = HIDDEN_FEATURES
#: Steps in which the two sequences differ, and steps of a sequence.
NUM_BEFORE, NUM_STEPS = 1_000, 100_000
#: Runs behind each mean, as the text says.
RUNS_STATED = 10
#: Runs behind each mean, as the digits say: all 48 of them are multiples of 1/5. Of ten
#: runs every second mean would be an odd multiple of 1/10.
RUNS_IMPLIED = 5

#: Mean number of steps, by cell and number of input features, for `HIDDEN_FEATURES`.
MEANS = {
    "lstm": {
        1: (1.4, 20.4, 34.0, 34.8, 43.0, 39.8, 47.8, 45.4),
        16: (1.0, 15.4, 24.6, 27.0, 36.2, 39.6, 40.8, 44.8),
        128: (1.0, 14.2, 22.8, 26.4, 28.6, 30.6, 31.6, 35.6),
    },
    "gru": {
        1: (0.6, 13.6, 15.6, 18.2, 15.4, 15.6, 16.2, 19.6),
        16: (0.8, 11.0, 15.8, 14.4, 15.6, 17.0, 15.4, 16.4),
        128: (2.0, 7.0, 12.6, 14.4, 14.2, 15.0, 15.0, 15.2),
    },
}


def published_mean(cell: str, in_features: int, hidden_features: int) -> float | None:
    """Look up a published mean.

    Args:
        cell: "lstm" or "gru".
        in_features: F.
        hidden_features: H.

    Returns:
        Steps, or None where the table has no such place.

    Examples:
        >>> published_mean("gru", 128, 2)
        7.0

    References:
        E. Muccino, "An Investigation of RNN Memory Stability", 2 April 2019.
    """
    row = MEANS[cell].get(in_features)
    if row is None or hidden_features not in HIDDEN_FEATURES:
        return None
    return row[HIDDEN_FEATURES.index(hidden_features)]
