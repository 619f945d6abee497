"""nbgrader, made to work with this kit: `configure` fills nbgrader_config.py, which names the rest."""

from grader.nbgrader.configure import configure

__all__ = ["configure"]
