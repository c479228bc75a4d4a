"""Predictions over HTTP: `mmjax serve RUN`, or `make_app` for a server of your own."""

from mmjax.serve.app import make_app

__all__ = ["make_app"]
