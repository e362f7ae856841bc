# syntax=docker/dockerfile:1
# One image for head and workers: docker build --tag headrace:0.1.0 . (--build-arg VARIANT=gpu for NVIDIA GPUs)
# Not built yet: it was written where no container engine ran. Its steps are those of scripts/install.py.
FROM python:3.11-slim

ARG VARIANT=cpu
# Where torch's CPU build is found if the configured index lacks it, as in scripts/install.py.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

# vLLM's CPU build loads libnuma; its GPU build compiles kernels when it starts.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libnuma1 $([ "$VARIANT" = gpu ] && echo gcc libc6-dev) \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/headrace
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY headrace headrace
COPY compress compress
COPY cluster cluster
COPY deployments deployments
COPY simulation simulation
COPY autoscaling autoscaling
COPY routing routing
# Beside a CPU torch, CUDA builds of torch's companions break every import of transformers; nothing needs them.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint constraints.txt pip \
    && pip install --constraint constraints.txt --group fetch ".[$VARIANT]" \
        $([ "$VARIANT" = cpu ] && echo --extra-index-url "$TORCH_INDEX") \
    && if [ "$VARIANT" = cpu ]; then pip uninstall --yes torchvision torchaudio torchcodec; fi

RUN useradd --uid 1000 --create-home headrace
USER 1000
WORKDIR /home/headrace
