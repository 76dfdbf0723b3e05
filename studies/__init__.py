"""Experiments about the method: each file answers one question with runs of train.py."""

# Ctrl-C is a line from here on, also while torch is imported
import engine  # noqa: F401
