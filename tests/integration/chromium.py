"""A real Chromium, driven as a person drives it: keys, a window of some width, and what a screen reader is told."""

from __future__ import annotations

import asyncio
import os
import signal
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
SECONDS = 30.0

_KEYS = {
    "Tab": {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9},
    "Enter": {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"},
    "Space": {"key": " ", "code": "Space", "windowsVirtualKeyCode": 32, "text": " "},
    "ArrowDown": {"key": "ArrowDown", "code": "ArrowDown", "windowsVirtualKeyCode": 40},
}
_SHIFT = 8


class Heard(NamedTuple):
    """Something that a screen reader is told of."""

    role: str
    name: str
    states: dict[str, Any]


class Tab:
    """One page in the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, session: str) -> None:
        self._socket = socket
        self._session = session
        self._number = 0
        self._loaded = 0

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What the browser answers to a command of the DevTools protocol."""
        self._number += 1
        number = self._number
        command = {"id": number, "method": method, "params": parameters}
        await self._socket.send_json(command | ({"sessionId": self._session} if self._session else {}))
        while True:
            message = await self._next()
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    async def _next(self) -> dict[str, Any]:
        async with asyncio.timeout(SECONDS):
            message: dict[str, Any] = await self._socket.receive_json()
        self._loaded += message.get("method") == "Page.loadEventFired"
        return message

    async def go(self, url: str) -> None:
        """Open an address."""
        before = self._loaded
        await self.call("Page.navigate", url=url)
        while self._loaded == before:
            await self._next()

    async def press(self, name: str, *, shift: bool = False, leaves: bool = False) -> None:
        """Press a key; `leaves` waits for the page that it leads to."""
        before, key = self._loaded, {**_KEYS[name], "modifiers": _SHIFT if shift else 0}
        kind = "keyDown" if "text" in key else "rawKeyDown"
        await self.call("Input.dispatchKeyEvent", type=kind, **key)
        key.pop("text", None)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **key)
        while leaves and self._loaded == before:
            await self._next()

    async def evaluate(self, expression: str) -> Any:
        """What an expression is in the page; the page's policy does not hold for it."""
        found = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def prefer(self, *, language: str = "en", width: int = 800, scheme: str = "light") -> None:
        """What the person has set in the browser, and how wide the window is."""
        agent = await self.evaluate("navigator.userAgent")
        await self.call("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage=language)
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600
        )
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def heard(self) -> list[Heard]:
        """The accessibility tree, in order, without what is ignored and without the pieces of texts."""
        nodes = (await self.call("Accessibility.getFullAXTree"))["nodes"]
        found = []
        for node in nodes:
            role = node.get("role", {}).get("value", "")
            if node["ignored"] or role in ("InlineTextBox", "none", "generic"):
                continue
            states = {item["name"]: item["value"].get("value") for item in node.get("properties", ())}
            states["description"] = node.get("description", {}).get("value", "")
            found.append(Heard(role, node.get("name", {}).get("value", ""), states))
        return found

    async def focused(self) -> Heard:
        """Where the keyboard is."""
        return next(one for one in reversed(await self.heard()) if one.states.get("focused"))

    async def picture(self, path: Path) -> None:
        """The whole page as PNG."""
        found = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(b64decode(found["data"]))


@asynccontextmanager
async def browser(program: str, folder: Path) -> AsyncIterator[Tab]:
    """A new browser with one page; it ends with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        *(program, *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env=os.environ | {"HOME": str(folder)},
        start_new_session=True,
    )
    try:
        async with aiohttp.ClientSession() as session:
            address = await _address(folder / "profile" / "DevToolsActivePort")
            async with session.ws_connect(address, max_msg_size=1 << 26) as socket:
                whole = Tab(socket, "")
                target = (await whole.call("Target.createTarget", url="about:blank"))["targetId"]
                attached = await whole.call("Target.attachToTarget", targetId=target, flatten=True)
                tab = Tab(socket, attached["sessionId"])
                for domain in ("Page", "Runtime", "Accessibility"):
                    await tab.call(f"{domain}.enable")
                yield tab
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        await process.wait()


async def _address(file: Path) -> str:
    """Where the browser listens; it writes that down when it does."""
    async with asyncio.timeout(SECONDS):
        while not file.exists() or file.read_text().count("\n") < 1:
            await asyncio.sleep(0.05)
    port, path = file.read_text().split("\n")[:2]
    return f"ws://127.0.0.1:{port}{path}"
