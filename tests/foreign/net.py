"""A program in Python with sockets as for any system: an echo server and its client, without threads, with selectors,
half-close, datagrams, names and errors. Prints "ok"."""

import encodings.idna  # noqa: F401  Only what is imported at build time is there; socket asks for this later.
import selectors
import socket
import sys

CLIENTS = 4
SIZE = 200_000


def streams():
    listener = socket.create_server(("127.0.0.1", 0), backlog=CLIENTS)
    listener.setblocking(False)
    address = listener.getsockname()
    assert address[0] == "127.0.0.1" and address[1] != 0, address
    ready = selectors.DefaultSelector()
    ready.register(listener, selectors.EVENT_READ, None)
    left = {}
    for number in range(CLIENTS):
        client = socket.create_connection(address, timeout=10)
        client.setblocking(False)
        left[client] = [memoryview(bytes([number]) * SIZE), bytearray(), number]
        ready.register(client, selectors.EVENT_READ | selectors.EVENT_WRITE, "client")
    open_clients = CLIENTS
    while open_clients:
        events = ready.select(10)
        assert events, "nothing in ten seconds"
        for key, mask in events:
            if key.data is None:
                server, peer = listener.accept()
                assert peer[0] == "127.0.0.1", peer
                server.setblocking(False)
                left[server] = [bytearray()]
                ready.register(server, selectors.EVENT_READ, "server")
            elif key.data == "server":
                open_now = serve(ready, key.fileobj, left[key.fileobj][0], mask)
                assert open_now or not left.pop(key.fileobj)[0]
            elif not call(ready, key.fileobj, left[key.fileobj], mask):
                del left[key.fileobj]
                open_clients -= 1
    ready.close()
    listener.close()
    try:
        socket.create_connection(address, timeout=10)
        raise AssertionError("nobody listens there")
    except ConnectionRefusedError:
        pass


def serve(ready, server, held, mask):
    """Sends back what came; False at the end."""
    if mask & selectors.EVENT_READ:
        data = server.recv(4096)
        if not data:
            ready.unregister(server)
            server.sendall(held) if held else None
            held.clear()
            server.close()
            return False
        held += data
    if held:
        try:
            del held[: server.send(held)]
        except BlockingIOError:
            pass
    ready.modify(server, selectors.EVENT_WRITE if held else selectors.EVENT_READ, "server")
    return True


def call(ready, client, state, mask):
    """Sends what is left and takes what came; False at the end."""
    data, got, number = state
    if mask & selectors.EVENT_WRITE and len(data):
        try:
            state[0] = data = data[client.send(data[:8192]) :]
        except BlockingIOError:
            pass
        if not len(data):
            client.shutdown(socket.SHUT_WR)
            ready.modify(client, selectors.EVENT_READ, "client")
    if mask & selectors.EVENT_READ:
        part = client.recv(8192)
        got += part
        if not part:
            assert got == bytes([number]) * SIZE, len(got)
            ready.unregister(client)
            client.close()
            return False
    return True


def datagrams():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        two.settimeout(10)
        assert one.sendto(b"ping", two.getsockname()) == 4
        assert two.recvfrom(64) == (b"ping", one.getsockname())


def names():
    found = socket.getaddrinfo("localhost", 80, socket.AF_INET, socket.SOCK_STREAM)
    assert found and all(address[0].startswith("127.") and address[1] == 80 for *_, address in found), found
    try:
        socket.getaddrinfo("no.such.name", 80)
        raise AssertionError("there is no such name")
    except socket.gaierror:
        pass


class Run:
    """What a command exports."""

    def run(self):
        streams()
        datagrams()
        names()
        print("ok", sys.version_info[0])
