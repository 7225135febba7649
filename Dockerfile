# The page on port 7860, on a CPU:
#   docker build -t afterimage . && docker run -p 7860:7860 -v afterimage:/cache afterimage
# What stands behind the image's name are further options of app.py.
FROM python:3.12-slim

# The user is not root, and has the number that Hugging Face's Spaces give it.
RUN useradd --create-home --uid 1000 afterimage \
    && install --directory --owner afterimage /cache
WORKDIR /home/afterimage/app

# PyTorch's build for the CPU first: the one that pip else brings is three times as large.
COPY requirements.txt ./
RUN grep -E '^torch(vision)?[<>=]' requirements.txt > /tmp/torch.txt \
    && pip install --no-cache-dir -r /tmp/torch.txt --index-url https://download.pytorch.org/whl/cpu \
    && pip install --no-cache-dir -r requirements.txt \
    && rm /tmp/torch.txt

COPY app.py pyproject.toml LICENSE README.md ./
COPY explorer explorer
COPY backends backends
COPY assets assets
COPY checkpoints checkpoints

# Finished pictures, surfaces and what libraries keep outlive the container.
ENV AFTERIMAGE_CACHE=/cache/afterimage MPLCONFIGDIR=/cache/matplotlib HF_HOME=/cache/huggingface \
    PYTHONUNBUFFERED=1
VOLUME /cache
USER 1000
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7860/healthz', timeout=4)"]
# Ctrl+C's signal ends the app; a process that is the container's first ignores the usual one.
STOPSIGNAL SIGINT
ENTRYPOINT ["python", "app.py", "--host", "0.0.0.0", "--port", "7860", "--no-browser"]
