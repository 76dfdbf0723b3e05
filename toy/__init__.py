"""The embedded worlds: what their notes say, what is true in them, how their models are made."""

# Ctrl-C is a line from here on, also while torch is imported
import engine  # noqa: F401
