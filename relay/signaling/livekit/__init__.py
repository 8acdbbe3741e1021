"""The adapter for LiveKit client SDKs: one WebSocket, protobuf messages, two transports per session (v0) or one (v1)."""
