#!/usr/bin/env bash
# Gradio 6.31.0 puts a middleware in front of its server that compresses with Brotli, and with gzip
# for those who do not take that. It is tempting to take the size of a page for settled.
#
# Expected: the page and its settings, the largest answers there are and all text, come compressed
#   to a browser that takes `br` or `gzip`.
# Observed: only paths that end like a file (.js, .css, .html ...) are compressed. The page is at
#   "/" and its settings at "/config", which have no ending, so both come as they are, on every
#   visit, written anew and without an ETag. With scripts of one's own in gr.HTML that is the most
#   that a visit costs: the settings are in the page, and every script is in the settings.
#
# Output when this was written:
#   /           takes br, gzip: as it is, 1284 kB (br: 52 kB), no ETag
#   /config     takes br, gzip: as it is, 1279 kB (br: 50 kB), no ETag
#   a .js file  takes br, gzip: br
#
# Exits 1 if that has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" install --quiet gradio==6.31.0 >/dev/null 2>&1
cd "$place"
GRADIO_ANALYTICS_ENABLED=False "$place/env/bin/python" - <<'END'
import http.client
import os
import re
import warnings
from urllib.parse import urlsplit

warnings.filterwarnings("ignore")
import brotli
import gradio as gr

script = "\n".join(f"const line{i} = {i};" for i in range(50_000))
with gr.Blocks(analytics_enabled=False) as page:
    gr.HTML("a plot", js_on_load=script)
_, address, _ = page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False)


def ask(path):
    line = http.client.HTTPConnection(urlsplit(address).netloc)
    line.request("GET", path, headers={"Accept-Encoding": "br, gzip"})
    answer = line.getresponse()
    return answer, answer.read()


whole = True
for path in ("/", "/config"):
    answer, body = ask(path)
    plain = answer.getheader("Content-Encoding") is None
    tag = answer.getheader("ETag")
    whole = whole and plain and tag is None and len(body) > 1_000_000
    small = len(brotli.compress(body, quality=4)) // 1000
    print(f"{path:11} takes br, gzip: {'as it is' if plain else 'compressed'}, "
          f"{len(body) // 1000} kB (br: {small} kB), {'an' if tag else 'no'} ETag")
found = re.search(r'"(?:\./)?(assets/[^"]+\.js)"', ask("/")[1].decode())
answer, _ = ask(f"/{found[1]}")
encoding = answer.getheader("Content-Encoding")
print(f"a .js file  takes br, gzip: {encoding}")
os._exit(0 if whole and encoding == "br" else 1)
END
