"""Serving an aiohttp application on a free port of localhost."""

from aiohttp import web

HOST = "127.0.0.1"


class LocalServer:
    """One application on 127.0.0.1; a request whose client hangs up is cancelled: a dead worker holds no poll."""

    def __init__(self, app: web.Application) -> None:
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2)

    async def start(self) -> str:
        """Starts serving; the base URL, e.g. http://127.0.0.1:40123."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, 0)
        await site.start()
        _, port = self._runner.addresses[0][:2]
        return f"http://{HOST}:{port}"

    async def stop(self) -> None:
        await self._runner.cleanup()
