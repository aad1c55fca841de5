"""One framework a file, imported only when it is asked for.

Each has an `IMPLEMENTATION`. A module that cannot be imported is a peer that is not
installed.
"""
