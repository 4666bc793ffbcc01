"""The git source: commits as values, read from objects without a checkout.

GitPython is not used, on purpose: its command builders have let user text become options and transports again and again
(CVE-2022-24439 to CVE-2026-67323), and all it would save here is parsing. One locked-down call (process.py) is enough.
"""

from reconciler.adapters.git.source import GitSource

__all__ = ["GitSource"]
