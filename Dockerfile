# docker build --build-arg ACCELERATOR=cuda13 --build-arg COMMIT=$(git rev-parse HEAD) \
#     --tag attunet_jax .        (or cuda12, tpu; with buckets cuda13,gcs; without it: CPU)
# docker run attunet_jax                                   (lists the programs)
# docker run --user $(id -u):$(id -g) -v $PWD/scans:/scans:ro -v $PWD/data:/data attunet_jax \
#     data_prep.prepare --source=nifti --input=/scans --output=/data \
#     --labels=spleen=1,pancreas=2,kidney=3
# docker run --gpus all --shm-size=16g --user $(id -u):$(id -g) -v $PWD/data:/data:ro \
#     -v $PWD/runs:/runs attunet_jax launch.train --data=/data --workdir=/runs/first
#
# Any program is a command. Without --user it runs as user 1000, never as root. Make the
# folders first (mkdir -p data runs): Docker would make them root's.
FROM python:3.12-slim AS packages
ARG ACCELERATOR=cpu
WORKDIR /attunet_jax
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY attunet_jax attunet_jax
RUN python -m venv /venv \
    && case "$ACCELERATOR" in cpu) project=. ;; *) project=".[$ACCELERATOR]" ;; esac \
    && /venv/bin/pip install --no-cache-dir --constraint constraints.txt --editable "$project"

FROM python:3.12-slim
ARG COMMIT=
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title=attunet_jax \
    org.opencontainers.image.licenses=Apache-2.0 \
    org.opencontainers.image.version=$VERSION \
    org.opencontainers.image.revision=$COMMIT
# A new volume (-v NAME:/runs) takes the mode of its folder here: any user may write it.
RUN useradd --uid 1000 --create-home attunet \
    && install --directory --mode=1777 /data /runs /scans
COPY --from=packages /venv /venv
WORKDIR /attunet_jax
COPY . .
# The commit goes into environment.json of each run. Caches are where any user may write.
# Huge pages make steps on a CPU faster.
ENV PATH=/venv/bin:$PATH PYTHONPATH=/attunet_jax ATTUNET_JAX_COMMIT=$COMMIT \
    XDG_CACHE_HOME=/tmp/cache MPLCONFIGDIR=/tmp/cache/matplotlib \
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1
USER 1000:1000
ENTRYPOINT ["python", "-m"]
CMD ["launch"]
