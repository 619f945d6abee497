"""A profile as an HTML fragment for notebooks. Everything a learner controls is escaped."""

from __future__ import annotations

import base64
from functools import lru_cache
from typing import Any

from grader.profiling import Profile
from grader.render.profile_picture import NoPictureError, png
from grader.render.profile_sheets import sheets

TEMPLATE = """
{%- set cell = "padding:.1em .8em;white-space:pre;" %}
<div style="max-width:70em;line-height:1.4">
  {%- for sheet in sheets %}
  <div style="margin:.9em 0 .2em"><b>{{ sheet.title }}</b></div>
  <table style="border-collapse:collapse">
    <tr>{% for name in sheet.head %}<th style="{{ cell }}text-align:{{ 'right' if name else 'left' }}">{{ name }}</th>
    {%- endfor %}</tr>
    {%- for row in sheet.rows %}
    <tr>{% for text in row %}<td style="{{ cell }}text-align:{{ 'right' if sheet.head[loop.index0] else 'left' }}">
      {{- text }}</td>{% endfor %}</tr>
    {%- endfor %}
  </table>
  {%- if sheet.note %}<div style="color:#57606a;white-space:pre-line">{{ sheet.note }}</div>{% endif %}
  {%- endfor %}
  {%- if picture %}
  <img alt="memory and operations against size" style="max-width:100%" src="data:image/png;base64,{{ picture }}">
  {%- endif %}
</div>
"""


@lru_cache
def template() -> Any:
    """Compile the template; jinja2 is imported only when HTML is wanted."""
    from jinja2 import Environment

    return Environment(autoescape=True).from_string(TEMPLATE)


def html(profile: Profile) -> str:
    """Write a profile's tables and its picture, where there is one, as one fragment."""
    try:
        picture = base64.b64encode(png(profile)).decode("ascii")
    except NoPictureError:
        picture = ""
    rendered: str = template().render(sheets=list(sheets(profile)), picture=picture)
    return rendered.strip()
