"""Experiments about the method: each file answers one question with runs of train.py."""
