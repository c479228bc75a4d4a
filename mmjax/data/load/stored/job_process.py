"""A process that runs the jobs of `parallel_jobs`."""

from mmjax.data.load.stored.parallel_jobs import serve_jobs

if __name__ == "__main__":
    serve_jobs()
