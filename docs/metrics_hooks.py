"""Hooks for `launch.train --on_metrics=docs/metrics_hooks.py:NAME`, to be copied.

Each takes the run's folder and its config, a dict, and returns what is called with each
row of metrics.jsonl. A run that was stopped and goes on starts its hook again.
"""


def wandb(workdir, config):  # pip install wandb
    import wandb

    name = workdir.name
    run = wandb.init(project="attunet", id=name, resume="allow", config=config)

    def write(step, metrics):
        run.log(metrics, step=step)

    write.close = run.finish
    return write


def mlflow(workdir, config):  # pip install mlflow
    import mlflow

    mlflow.set_experiment("attunet")
    mlflow.start_run(run_name=workdir.name)

    def write(step, metrics):
        mlflow.log_metrics(metrics, step=step)

    write.close = mlflow.end_run
    return write


def prometheus(workdir, config, port=8000):  # installed with Orbax
    from prometheus_client import Gauge, start_http_server

    gauge = Gauge("attunet", "Training metrics", ["run", "metric"])
    server, _ = start_http_server(port)

    def write(step, metrics):
        for name, value in {"step": step, **metrics}.items():
            gauge.labels(workdir.name, name).set(value)

    write.close = lambda: (server.shutdown(), server.server_close())
    return write
