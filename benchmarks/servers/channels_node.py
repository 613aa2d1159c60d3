"""Channels as one of two nodes: uvicorn, and ``channels_redis`` on Redis' publish and subscribe."""

import argparse
import json
import time
from typing import Any

import uvicorn
from django.conf import settings

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("--redis", required=True)
options = parser.parse_args()
LAYER = "channels_redis.pubsub.RedisPubSubChannelLayer"
settings.configure(
    CHANNEL_LAYERS={"default": {"BACKEND": LAYER, "CONFIG": {"hosts": [options.redis]}}}
)

from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402


class Consumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """Everything that one client may ask for."""

    async def receive(self, text_data: str = "", bytes_data: bytes | None = None) -> None:
        """Do what a message says."""
        message = json.loads(text_data)
        data = message["data"]
        if message["type"] == "join":
            await self.channel_layer.group_add("all", self.channel_name)
        if message["type"] == "shout":
            for _ in range(data["count"]):
                text = f"#{data['mark']} {time.perf_counter():.7f}#"
                await self.channel_layer.group_send("all", {"type": "pass.on", "text": text})
        else:
            await self.send(json.dumps({"type": "response", "data": data}))

    async def pass_on(self, event: dict[str, Any]) -> None:
        """Send a text of the group to this client."""
        await self.send(json.dumps({"type": "broadcast", "data": event["text"]}))


uvicorn.run(
    Consumer.as_asgi(), port=options.port, log_level="warning", ws="websockets", lifespan="off"
)
