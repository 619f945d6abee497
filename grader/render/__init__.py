"""Verdicts as text, HTML, a score, and JSON. Rendering is the last step; nothing is decided here."""
