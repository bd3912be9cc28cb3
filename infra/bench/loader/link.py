"""A link in front of an HTTP server: passes bytes on with a delay, at most so many a second over all connections.

    link.py http://HOST:PORT [--rate BYTES] [--delay SECONDS] [--slow SHARE --slower FACTOR]

Prints its own address. The delay is that of a request; one in 1 / SHARE of them waits FACTOR times as long.
"""
import argparse, asyncio, random, time, urllib.parse

PIECE = 16 << 10


class Link:
    """A bucket that all answers go through, one piece after the other."""

    def __init__(self, rate):
        self.rate, self.free = rate, 0.0

    async def take(self, size):
        if self.rate:
            self.free = max(self.free, time.monotonic() - 0.005) + size / self.rate
            if (wait := self.free - time.monotonic()) > 0:
                await asyncio.sleep(wait)


async def carry(options, host, port, link, random, reader, writer):
    try:
        server_reader, server_writer = await asyncio.open_connection(host, port)
    except OSError:
        writer.close()
        return

    async def requests():
        while piece := await reader.read(PIECE):
            # A request's head comes in one piece on a connection that waits for its answer before the next.
            if options.delay:
                slow = options.slow and random.random() < options.slow
                await asyncio.sleep(options.delay * (options.slower if slow else 1))
            server_writer.write(piece)
            await server_writer.drain()

    async def answers():
        while piece := await server_reader.read(PIECE):
            await link.take(len(piece))
            writer.write(piece)
            await writer.drain()

    tasks = [asyncio.create_task(requests()), asyncio.create_task(answers())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        server_writer.close()
        writer.close()


async def main(options):
    server = urllib.parse.urlparse(options.server)
    link, chance = Link(options.rate), random.Random(7)
    serve = lambda reader, writer: carry(options, server.hostname, server.port, link, chance, reader, writer)
    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", flush=True)
    await listening.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server")
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--delay", type=float, default=0)
    parser.add_argument("--slow", type=float, default=0)
    parser.add_argument("--slower", type=float, default=20)
    asyncio.run(main(parser.parse_args()))
