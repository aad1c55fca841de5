"""How fast are the cells, beside other libraries, and how many seeds a second?

    python -m experiments.benchmarks.against_peers --help
    python -m experiments.benchmarks.seeds --help
    python -m experiments.benchmarks.page --help

Every implementation computes the same function on the same data, which is checked
before anything is timed; what is measured on a machine with other work is worth little.
"""
