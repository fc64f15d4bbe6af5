"""The composition root: the Jupyter server extension, its providers, its checks."""
