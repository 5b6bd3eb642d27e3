# docker build --build-arg ACCELERATOR=cuda13 --build-arg COMMIT=$(git rev-parse HEAD) \
#     --tag attunet_jax .                                  (or cuda12, tpu; without it: CPU)
# docker run attunet_jax                                   (lists the programs)
# docker run -v $PWD/scans:/scans:ro -v $PWD/data:/data attunet_jax data_prep.prepare \
#     --source=nifti --input=/scans --output=/data --labels=spleen=1,pancreas=2,kidney=3
# docker run --gpus all --shm-size=16g -v $PWD/data:/data:ro -v $PWD/runs:/runs attunet_jax \
#     launch.train --data=/data --workdir=/runs/first
FROM python:3.12-slim
ARG ACCELERATOR=cpu
WORKDIR /attunet_jax
COPY . .
RUN case "$ACCELERATOR" in cpu) project=. ;; *) project=".[$ACCELERATOR]" ;; esac \
    && pip install --no-cache-dir --constraint constraints.txt --editable "$project"
ARG COMMIT=
# The commit goes into environment.json of each run; huge pages make steps on a CPU faster.
ENV ATTUNET_JAX_COMMIT=$COMMIT GLIBC_TUNABLES=glibc.malloc.hugetlb=1
ENTRYPOINT ["python", "-m"]
CMD ["launch"]
