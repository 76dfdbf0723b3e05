"""The embedded worlds: what their notes say, what is true in them, how their models are made."""
