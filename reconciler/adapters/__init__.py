"""The touching: one module per outside system. Adapters touch and never decide."""
