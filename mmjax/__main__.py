"""Makes `python -m mmjax` the console script `mmjax`."""

from mmjax.cli import script

if __name__ == "__main__":
    script()
