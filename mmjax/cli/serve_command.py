"""`mmjax serve RUN`: predictions of a trained model over HTTP."""

import argparse
from typing import Any

from mmjax.cli import options


def add_serve_command(commands: Any) -> None:
    """Adds the command to those of `mmjax`."""
    summary = "predict over HTTP with a trained model: JSON and files in, JSON out"
    parser = commands.add_parser("serve", help=summary, allow_abbrev=False)
    options.add_trained_model_options(parser)
    add = parser.add_argument
    host = "address to listen on (default: %(default)s, this machine only)"
    add("--host", default="127.0.0.1", metavar="NAME", help=host)
    port = options.parse_positive_number
    add("--port", type=port, default=8000, metavar="N", help="default: %(default)s")
    examples = "the most examples per request (default: %(default)s)"
    number = options.parse_positive_number
    add("--max-examples", type=number, default=64, metavar="N", help=examples)
    megabytes = "the largest request, in MB (default: %(default)s)"
    add("--max-megabytes", type=number, default=16, metavar="N", help=megabytes)
    options.add_trust_options(parser)
    options.add_cache_options(parser)


def serve_stored_run(arguments: argparse.Namespace) -> None:
    """Runs `mmjax serve` until it is interrupted."""
    from mmjax.cli.jax_setup import set_compilation_cache
    from mmjax.config import trust
    from mmjax.runs import load
    from mmjax.serve.app import import_fastapi, make_app

    import_fastapi()
    import uvicorn

    set_compilation_cache(arguments.compilation_cache)
    with trust.open_stored_run(options.read_trust_options(arguments)):
        trained = load.load(arguments.run, arguments.arm, arguments.seed)
    app = make_app(
        trained,
        max_examples=arguments.max_examples,
        max_bytes=arguments.max_megabytes * 10**6,
    )
    uvicorn.run(app, host=arguments.host, port=arguments.port)
