# Trains and exports, with a compiler for the kernels: docker build -f .ci/train.Dockerfile -t atelier-train .
#   docker run --rm --gpus all -v "$PWD/runs:/work/runs" atelier-train projects.cifar10.train --data synthetic
FROM python:3.13
ENV PYTHONUNBUFFERED=1
RUN --mount=type=bind,target=/tmp/source,rw python -m pip install --no-cache-dir /tmp/source
WORKDIR /work
ENTRYPOINT ["python", "-m"]
CMD ["projects.cifar10.train", "--help"]
