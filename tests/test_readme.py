"""The README's example runs and learns."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_readme_example_runs_and_every_seed_learns(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    scope = {}
    exec(compile(code, str(README), "exec"), scope)
    curves = scope["result"].metrics["loss"]
    assert curves.shape == (4, 100)
    assert (curves[:, -1] < 0.9 * curves[:, 0]).all()
    assert capsys.readouterr().out.count("[") == 1
