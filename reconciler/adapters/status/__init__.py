"""The reconciler as Hypha sees it: what may be asked, what may be ordered, and the web pages offered through it."""
