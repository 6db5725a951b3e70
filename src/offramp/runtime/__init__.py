"""Edge and devices: processes that run a branchy model together (design §4, timing model `network`)."""

import os

# grpc reads this when it is first imported; its own reports of broken connections are not for our users.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def report_handshakes() -> None:
    """Let grpc say on standard error which TLS handshakes it refuses, and why. Call it before grpc is imported."""
    if os.environ.get("GRPC_VERBOSITY") == "NONE":
        os.environ["GRPC_VERBOSITY"] = "INFO"
