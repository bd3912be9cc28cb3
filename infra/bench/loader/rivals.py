"""Loaders of others over the same photos and as many tokens: one JSON line each, {what, rival, rate}, rate a CPU-second.

    rivals.py LAKE     the folder that run.sh fills; what the rivals need is made there once

Each runs in a process of its own, without worker processes, on the cores that it was given; CPU is that of the process.
Photos: shuffled, random resized crop 224 (0.08 to 1), flip, normalise, batches of 64. Tokens: sequences of 1024 and one more
in random order, batches of 16. A rival that is not installed is left out.
"""
import glob, io, json, os, random, subprocess, sys, time


def photos(lake):
    files = sorted(glob.glob(f"{lake}/flower_photos_val/**/*.jpg", recursive=True))
    classes = {name: number for number, name in enumerate(sorted({os.path.dirname(file) for file in files}))}
    return files, [classes[os.path.dirname(file)] for file in files]


def transform():
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms import v2

    after = v2.Compose([v2.RandomResizedCrop(224, scale=(0.08, 1), antialias=True), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True),
                        v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
    return lambda file: after(decode_jpeg(torch.frombuffer(bytearray(file), dtype=torch.uint8), mode=ImageReadMode.RGB))


def torch_photos(lake):
    from torch.utils.data import DataLoader, Dataset

    (files, labels), decoded = photos(lake), transform()

    class Photos(Dataset):
        def __len__(self):
            return len(files)

        def __getitem__(self, number):
            with open(files[number], "rb") as file:
                return decoded(file.read()), labels[number]

    return DataLoader(Photos(), 64, shuffle=True)


def webdataset_photos(lake):
    import torch, webdataset

    (files, labels), decoded, folder = photos(lake), transform(), f"{lake}/rivals/webdataset"
    if not os.path.isdir(folder):
        os.makedirs(folder)
        with webdataset.ShardWriter(f"{folder}/%04d.tar", maxsize=32 << 20, verbose=0) as writer:
            for number in random.Random(1).sample(range(len(files)), len(files)):
                writer.write({"__key__": f"{number:07}", "jpg": open(files[number], "rb").read(), "cls": labels[number]})
    batch = lambda rows: (torch.stack([pixels for pixels, _ in rows]), torch.tensor([label for _, label in rows]))
    dataset = webdataset.WebDataset(sorted(glob.glob(f"{folder}/*.tar")), shardshuffle=100, empty_check=False).shuffle(1000)
    dataset = dataset.map(lambda row: (decoded(row["jpg"]), int(row["cls"]))).batched(64, collation_fn=batch, partial=True)
    return webdataset.WebLoader(dataset, batch_size=None, num_workers=0)


def mosaic_photos(lake):
    from streaming import MDSWriter, StreamingDataset
    from torch.utils.data import DataLoader

    (files, labels), decoded, folder = photos(lake), transform(), f"{lake}/rivals/mosaic"
    if not os.path.isdir(folder):
        with MDSWriter(out=folder, columns={"file": "bytes", "label": "int"}, size_limit=32 << 20) as writer:
            for file, label in zip(files, labels):
                writer.write({"file": open(file, "rb").read(), "label": label})

    class Photos(StreamingDataset):
        def __getitem__(self, number):
            row = super().__getitem__(number)
            return decoded(row["file"]), row["label"]

    return DataLoader(Photos(local=folder, shuffle=True, batch_size=64, num_canonical_nodes=1), 64)


def litdata_sample(photo):
    with open(photo[0], "rb") as file:
        return {"file": file.read(), "label": photo[1]}


def litdata_photos(lake):
    import litdata

    decoded, folder = transform(), f"{lake}/rivals/litdata"
    if not os.path.isdir(folder):
        # It deletes these folders, which by default are all of `data` and `chunks` in the folder for temporary files.
        for kind in ("DATA_OPTIMIZER_CACHE_FOLDER", "DATA_OPTIMIZER_DATA_CACHE_FOLDER"):
            os.environ[kind] = f"{lake}/rivals/{kind.lower()}"
        litdata.optimize(litdata_sample, list(zip(*photos(lake))), folder, chunk_bytes="32MB", num_workers=1, verbose=False)

    class Photos(litdata.StreamingDataset):
        def __getitem__(self, number):
            row = super().__getitem__(number)
            return decoded(row["file"]), row["label"]

    return litdata.StreamingDataLoader(Photos(folder, shuffle=True, drop_last=False, cache_dir=f"{lake}/rivals/litdata-cache"), batch_size=64)


def lance_photos(lake):
    import lance, pyarrow, torch
    from lance.torch.data import SafeLanceDataset
    from torch.utils.data import DataLoader

    (files, labels), decoded, table = photos(lake), transform(), f"{lake}/rivals/photos.lance"
    if not os.path.isdir(table):
        order = random.Random(1).sample(range(len(files)), len(files))
        contents = pyarrow.array([open(files[number], "rb").read() for number in order], pyarrow.large_binary())
        lance.write_dataset(pyarrow.table({"file": contents, "label": [labels[number] for number in order]}), table, max_rows_per_file=512)
    batch = lambda rows: (torch.stack([decoded(row["file"]) for row in rows]), torch.tensor([row["label"] for row in rows]))
    return DataLoader(SafeLanceDataset(table), 64, shuffle=True, collate_fn=batch)


def spdl_photos(lake):
    import torch
    from spdl.pipeline import PipelineBuilder

    (files, labels), decoded = photos(lake), transform()

    def photo(number):
        with open(files[number], "rb") as file:
            return decoded(file.read()), labels[number]

    batch = lambda rows: (torch.stack([pixels for pixels, _ in rows]), torch.tensor([label for _, label in rows]))
    pipeline = PipelineBuilder().add_source(random.sample(range(len(files)), len(files))).pipe(photo, concurrency=1)
    pipeline = pipeline.aggregate(64).pipe(batch).add_sink(2).build(num_threads=1)
    with pipeline.auto_stop():
        yield from pipeline.get_iterator(timeout=60)


LENGTH = 1025


def token_file(lake, count=50_000_000):
    import numpy

    path = f"{lake}/rivals/tokens.bin"
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        numpy.random.default_rng(0).zipf(1.2, count).clip(max=4000).astype(numpy.uint16).tofile(path)
    tokens = numpy.memmap(path, numpy.uint16, "r")
    return tokens[: len(tokens) // LENGTH * LENGTH].reshape(-1, LENGTH)


def stacked(rows):
    import numpy, torch

    ids = torch.stack([torch.from_numpy(numpy.asarray(row).astype(numpy.int64)) for row in rows])
    return ids[:, :-1], ids[:, 1:]


def memmap_tokens(lake):
    import numpy

    rows = token_file(lake)
    order = numpy.random.default_rng(1).permutation(len(rows))
    return (stacked([rows[row] for row in order[at : at + 16]]) for at in range(0, len(rows), 16))


def mosaic_tokens(lake):
    import numpy
    from streaming import MDSWriter, StreamingDataset
    from torch.utils.data import DataLoader

    folder = f"{lake}/rivals/mosaic-tokens"
    if not os.path.isdir(folder):
        with MDSWriter(out=folder, columns={"tokens": f"ndarray:uint16:{LENGTH}"}, size_limit=64 << 20) as writer:
            for row in token_file(lake):
                writer.write({"tokens": numpy.ascontiguousarray(row)})
    dataset = StreamingDataset(local=folder, shuffle=True, batch_size=16, num_canonical_nodes=1)
    return DataLoader(dataset, 16, collate_fn=lambda rows: stacked([row["tokens"] for row in rows]))


RIVALS = {
    "torch DataLoader": ("photos", torch_photos, "torch"), "WebDataset": ("photos", webdataset_photos, "webdataset"),
    "Mosaic Streaming": ("photos", mosaic_photos, "mosaicml-streaming"), "LitData": ("photos", litdata_photos, "litdata"),
    "Lance take": ("photos", lance_photos, "pylance"), "SPDL": ("photos", spdl_photos, "spdl"), "numpy memmap": ("tokens", memmap_tokens, "numpy"),
    "Mosaic Streaming (tokens)": ("tokens", mosaic_tokens, "mosaicml-streaming"),
}


def measure(name, lake):
    from importlib.metadata import version
    import torch

    torch.set_num_threads(1)
    what, make, package = RIVALS[name]
    for _, batch in zip(range(2), make(lake)):
        pass
    batches, count, began, cpu = make(lake), 0, time.perf_counter(), time.process_time()
    for first, _ in batches:
        count += first.numel() if what == "tokens" else len(first)
        if time.perf_counter() - began > 8:
            break
    print(json.dumps({"what": what, "rival": f"{name} {version(package)}", "rate": count / (time.process_time() - cpu)}), flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(sys.argv[2], sys.argv[1])
    for name in RIVALS if len(sys.argv) == 2 else ():
        done = subprocess.run([sys.executable, __file__, sys.argv[1], name], capture_output=True, text=True)
        print(done.stdout, end="", flush=True)
        if done.returncode:
            print(f"{name}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
