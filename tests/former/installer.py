"""What an operator of some version does to a database: the bus_operator that PYTHONPATH leads to.

    python installer.py URI install
    python installer.py URI channel NAME SPEC     (SPEC is JSON; prints the login's user and password as JSON)

Prints `reason: message` and ends with 1 where it refuses.
"""

import asyncio
import json
import sys

from bus_operator import provision
from bus_operator.actions import DesiredChannel
from bus_operator.database import AdminConnection, connect
from bus_operator.errors import BusError
from bus_operator.model import ChannelSpec


async def main(uri: str, command: str, *arguments: str) -> None:
    async with connect(AdminConnection.from_uri(uri)) as connection:
        _, done = await provision.install(connection)
        if command == "install":
            print(*done, sep="\n")
            return
        name, spec = arguments
        parsed = ChannelSpec.model_validate({"channel": name, **json.loads(spec)})
        desired = DesiredChannel.from_spec(parsed, namespace="test", name="test", uid=f"uid-{name}")
        issued = (await provision.provision(connection, desired, None)).issued
        print(json.dumps([issued.username, issued.password]))


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except BusError as exc:
        sys.exit(f"{exc.reason}: {exc}")
