"""Predictions over HTTP: `mmjax serve RUN`, or `make_app` for use in another server."""

from mmjax.serve.app import make_app

__all__ = ["make_app"]
