"""Parameters of other frameworks to ours and back; no framework is imported."""

__all__: list[str] = []
