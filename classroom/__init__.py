"""A course: the method's core with its functions blanked, and graders that say what went wrong."""
