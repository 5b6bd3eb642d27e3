"""Checks manifests of Kubernetes by schemas and models that others publish."""

from pathlib import Path

import pytest
import yaml


def documents(path: Path) -> list[dict]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def check_schema(document: dict) -> None:
    """Fails for a field that is not in the schema, and for one of a wrong type."""
    if document["kind"] != "JobSet":
        _validate(document)
        return
    models = pytest.importorskip("kubeflow_trainer_api.models")
    assert document["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    model = models.JobsetV1alpha2JobSet.from_dict(document)
    # Models drop what they do not know: nothing may be lost on the way.
    assert model.to_dict() == document
    for job in document["spec"]["replicatedJobs"]:
        inside = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": job["name"]},
            "spec": job["template"]["spec"],
        }
        _validate(inside)


def _validate(document: dict) -> None:
    validator = pytest.importorskip("kubernetes_validate")
    # 1.31: the first with podFailurePolicy as a stable field.
    validator.validate(document, "1.31", strict=True)
