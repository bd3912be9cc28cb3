"""A file system of its own for the lake, in memory, so that it can be full or refuse to be written. Linux, root."""
import pathlib, subprocess

SIZE = "96m"


class Disk:
    def __init__(self, folder):
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "forebay-chaos", str(folder)], check=True)

    def fill(self):
        block = bytes(1 << 16)
        try:
            with open(self.filler(), "wb", buffering=0) as file:
                while file.write(block) == len(block):
                    pass
        except OSError:
            # It is full.
            pass

    def free(self):
        self.filler().unlink(missing_ok=True)

    def protect(self, on):
        # Refused while something is being written: then it is tried no more, and the fault has not happened.
        subprocess.run(["mount", "-o", "remount," + ("ro" if on else "rw"), str(self.folder)], check=not on, stderr=subprocess.DEVNULL)

    def remove(self):
        self.free()
        # What was published stays to be looked at as long as somebody does.
        subprocess.run(["umount", "--lazy", str(self.folder)], check=False)

    def filler(self) -> pathlib.Path:
        return self.folder / "filler"
