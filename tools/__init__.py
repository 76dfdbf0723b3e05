"""What one runs beside training: plans, benchmarks, measurements. python -m tools.NAME"""

# Ctrl-C is a line from here on, also while torch is imported
import engine  # noqa: F401
