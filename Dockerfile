# docker build --build-arg ACCELERATOR=cuda12 --tag attunet_jax .      (or cpu, tpu)
# docker run attunet_jax --help                                 (launch.train's words)
FROM python:3.12-slim
ARG ACCELERATOR=cpu
WORKDIR /attunet_jax
COPY . .
RUN case "$ACCELERATOR" in cpu) jax=jax ;; *) jax="jax[$ACCELERATOR]" ;; esac \
    && pip install --no-cache-dir --constraint constraints.txt --editable . "$jax"
ENTRYPOINT ["python", "-m", "launch.train"]
