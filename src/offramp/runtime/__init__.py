"""Edge and devices: processes that run a branchy model together (design §4, timing model `network`)."""

import os

# grpc reads this when it is first imported; its own reports of broken connections are not for our users.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
