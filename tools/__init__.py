"""What one runs beside training: plans, benchmarks, measurements. python -m tools.NAME"""
