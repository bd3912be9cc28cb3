"""Figure I8: pictures a CPU-second: decode, check, exact and perceptual hash, scale to a shorter side of 256, re-encode, write."""
from command import arguments, ingest, machine, pipeline, rival, rounds, show, startup
from corpus import unpacked


def main():
    parser = arguments(__doc__)
    parser.add_argument("--rivals", action="store_true")
    options = parser.parse_args()
    folder = unpacked(options, ["flower_photos_val"]) / "flower_photos_val"
    settings = pipeline(options.scratch / "dataset", folder, "images", **{"picture.max_short_side": 256, "picture.quality": 90})
    ingest(options, settings)  # fills the page cache
    run = rounds(options, settings)
    start = startup(options)
    show("machine", processor=machine(), startup_cpu_s=start)
    figures = {key: run[key] for key in ("read", "kept", "cpu_s", "wall_s", "peak_mb", "stages")}
    show("I8", pictures_a_cpu_s=run["read"] / run["cpu_s"], without_startup=run["read"] / (run["cpu_s"] - start), **figures)
    if options.rivals:
        rival(options, "venv", "ingest_images.py", "--data", folder, "--peers", "full-pil,cv2-256-parquet")


if __name__ == "__main__":
    main()
