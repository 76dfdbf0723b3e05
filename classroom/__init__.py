"""A course: the method's core with its functions blanked, and graders that say what went wrong."""

# Ctrl-C is a line from here on, also while torch is imported
import engine  # noqa: F401
