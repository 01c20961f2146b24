"""The stage behind --mode=demo: a model is loaded and compiled, and its page served to this machine alone.

The page needs no network: fonts are the system's, and a policy with every answer forbids the browser to ask
anybody else. What is uploaded lies in a folder of its own until it is read; the folder ends with the process.
"""

import importlib.util
import os
import socket
import tempfile
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

from pixmed_jax.demo.painter import Painter, open_painter
from pixmed_jax.errors import OptionError, PixmedError

WEIGHTS = Path(__file__).parents[1] / "weights" / "demo"
HOST = "127.0.0.1"
LARGEST = "32mb"  # upload
_SESSIONS = 100  # of which an uploaded anatomy is remembered
_POLICY = (
    b"default-src 'self'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data:; "
    b"style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    b"frame-ancestors 'none'"
)


def demo(
    workdir: Path | None,
    *,
    port: int = 7860,
    browser: bool = False,
    step: str = "newest",
    layout: str = "",
) -> None:
    """Serve the page of a run, of an exported model, or of the project's own weights, until a signal comes.

    port: 0 takes any that is free. browser: open the page in one. layout: the folder of a run of
    configs/layout.py, or of its export, which then draws the heads.
    """
    if workdir is None and step != "newest":
        raise OptionError(
            f"demo.step={step}: the weights that come with the project are of one step; leave it out, or "
            "give --workdir, the folder of a run"
        )
    if importlib.util.find_spec("gradio") is None:
        raise PixmedError('--mode=demo needs gradio; pip install "pixmed-jax[demo]", or -e ".[demo]"')
    painter = open_painter(workdir or WEIGHTS, step, layout)
    painter.warm_up()
    with served(painter, port) as address:
        print(f"{painter.name}, step {painter.generator.step}: {address} (Ctrl-C ends it)", flush=True)
        if browser:
            webbrowser.open(address)
        Event().wait()


@contextmanager
def served(painter: Painter, port: int) -> Iterator[str]:
    """The address of the page, for as long as the block lasts."""
    if not 0 <= port < 2**16:
        raise OptionError(f"demo.port={port}: give 1 to 65535, or 0 for any that is free")
    with tempfile.TemporaryDirectory(prefix="pixmed-demo-") as uploads:
        settings = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": uploads, "HF_HUB_OFFLINE": "1"}
        # Else each answer is kept in the browser: nobody's business, and each slower than the one before.
        settings["GRADIO_RUN_HISTORY"] = "False"
        os.environ.update(settings)  # gradio reads them when it is imported or launched
        import gradio
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware

        from pixmed_jax.demo.page import look, page

        blocks = page(painter)
        system = ["system-ui", "sans-serif"]
        theme = gradio.themes.Base(font=system, font_mono=["ui-monospace", "monospace"])
        # A page elsewhere whose name is made to mean 127.0.0.1 still calls this by that name.
        hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
        try:
            _, address, _ = blocks.launch(
                server_name=HOST,
                server_port=port or _free(),
                share=False,
                inbrowser=False,
                prevent_thread_lock=True,
                quiet=True,
                footer_links=[],
                max_file_size=LARGEST,
                state_session_capacity=_SESSIONS,
                enable_monitoring=False,
                ssr_mode=False,
                app_kwargs={"middleware": [hosts, Middleware(_Policy)], "openapi_url": None},
                theme=theme,
                css=look(painter),
            )
        except OSError as error:
            raise PixmedError(
                f"demo.port={port}: in use; give another, or --demo.port=0 for any that is free"
            ) from error
        try:
            yield address
        finally:
            blocks.close(verbose=False)


def _free() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class _Policy:
    """Adds the policy to every answer."""

    def __init__(self, app: Any):
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY)]
            await send(message)

        await self._app(scope, receive, with_policy)
