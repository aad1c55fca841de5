"""For how many steps does an untrained cell remember that its inputs once differed?

    python -m experiments.memory_of_untrained_cells --help

The experiment of Muccino (2019) again: two sequences differ for 1,000 steps and are the
same from then on; steps are counted until the outputs are the same.
"""
