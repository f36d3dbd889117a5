# Serves exported models, without torch: docker build -f .ci/serve.Dockerfile -t atelier-serve .
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/runs:/runs:ro" atelier-serve \
#       projects.cifar10.serve /runs/cifar10/RUN/model.onnx --host 0.0.0.0
FROM python:3.13-slim
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
COPY .ci/serve-requirements.txt /tmp/
RUN python -m pip install --no-cache-dir --requirement /tmp/serve-requirements.txt
RUN --mount=type=bind,target=/tmp/source,rw python -m pip install --no-cache-dir --no-deps /tmp/source
USER nobody
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health')"]
ENTRYPOINT ["python", "-m"]
CMD ["projects.cifar10.serve", "--help"]
