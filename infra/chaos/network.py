"""A network namespace for each replica, on a bridge, so that a link can be cut or slowed. Linux, root, iproute2."""
import os, socket, subprocess


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Links:
    """Namespaces and links of replicas; the coordinator is on the bridge's own address."""

    host = "10.213.7.1"

    def __init__(self, names):
        self.names, self.bridge = names, f"fb{os.getpid() % 100000}"
        run("link", "add", self.bridge, "type", "bridge")
        run("addr", "add", f"{self.host}/24", "dev", self.bridge)
        run("link", "set", self.bridge, "up")
        for index, name in enumerate(names):
            space, outer = self.space(name), self.outer(name)
            run("netns", "add", space)
            run("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", space)
            run("link", "set", outer, "master", self.bridge, "up")
            run("-n", space, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
            run("-n", space, "link", "set", "eth0", "up")
            run("-n", space, "link", "set", "lo", "up")

    def space(self, name):
        return f"{self.bridge}-{name}"

    def outer(self, name):
        return f"{self.bridge}{name}"

    def address(self, name):
        return f"10.213.7.{10 + self.names.index(name)}"

    def inside(self, name):
        return ["ip", "netns", "exec", self.space(name)]

    def set(self, name, up):
        run("link", "set", self.outer(name), "up" if up else "down")

    def between(self, one, other, up):
        """Whether two replicas reach each other; all else is as it was."""
        for here, there in ((one, other), (other, one)):
            run("-n", self.space(here), "route", "del" if up else "add", "blackhole", f"{self.address(there)}/32")

    def slow(self, name, slow):
        """Gives a replica's link 2 Mbit/s each way, or all that there is."""
        for prefix, device in (([], self.outer(name)), (self.inside(name), "eth0")):
            shape = ["add", "dev", device, "root", "tbf", "rate", "2mbit", "burst", "16kb", "latency", "400ms"]
            subprocess.run([*prefix, "tc", "qdisc", *(shape if slow else ["del", "dev", device, "root"])], check=True)

    def remove(self):
        for name in self.names:
            subprocess.run(["ip", "netns", "del", self.space(name)], check=False)
        subprocess.run(["ip", "link", "del", self.bridge], check=False)


def run(*arguments):
    subprocess.run(["ip", *arguments], check=True)
