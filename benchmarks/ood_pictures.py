"""Pictures out of CIFAR-10's domain for `kneessl imbalance --ood`: Fashion-MNIST, by way of Debian.

    python benchmarks/ood_pictures.py OUT

Fashion-MNIST (Xiao, Rasul, Vollgraf 2017; MIT licence) has 70,000 grey photographs of Zalando's articles, 28 x 28, in
ten classes of which CIFAR-10 has none. Debian's package dataset-fashion-mnist holds it: 31 MB, fetched by apt-get and
unpacked by dpkg-deb. OUT gets `train/CLASS/*.png` and `test/CLASS/*.png`: the first of each class in the published
order, 500 and 200 unless told otherwise. A black margin makes them 32 x 32, of which
`kneessl.pictures.folder.read_images` reads the middle 28 x 28: the photograph.
"""

import argparse
import gzip
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from kneessl.errors import UserError
from kneessl.files import new_folder

PACKAGE = "dataset-fashion-mnist"
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
SHA256 = "14410854cf7a289477dcfc7df3f8ec24741e281cdcc425ede0d9a748ca630214"
"""Of the four files, unpacked, one after the other: Debian packs them anew."""
CLASSES = (
    *("t-shirt-or-top", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle-boot"),
)
SIDE, MARGIN = 28, 2


def fetch() -> list[bytes]:
    """The four published files, as Debian has them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Its other user may not write into a temporary folder.
        download = ["apt-get", "--quiet", "--option", "APT::Sandbox::User=root", "download", PACKAGE]
        if subprocess.run(download, cwd=folder, stdout=subprocess.DEVNULL).returncode:
            raise UserError(f"apt-get cannot download {PACKAGE}; run apt-get update and try again")
        (archive,) = folder.glob("*.deb")
        subprocess.run(["dpkg-deb", "--extract", archive.name, "content"], cwd=folder, check=True)
        data = folder / "content/usr/share/datasets/fashion-mnist"
        contents = [gzip.decompress((data / f"{file}.gz").read_bytes()) for file in FILES]
    if hashlib.sha256(b"".join(contents)).hexdigest() != SHA256:
        raise UserError(f"{PACKAGE} does not hold the files expected: their hash differs")
    return contents


def write(folder: Path, images: bytes, labels: bytes, most: int) -> None:
    """Write the first `most` pictures of each class; both files are in the IDX format, 16 and 8 bytes of header."""
    pictures = np.frombuffer(images, np.uint8, offset=16).reshape(-1, SIDE, SIDE)
    padded = np.pad(pictures, ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)))
    classes = np.frombuffer(labels, np.uint8, offset=8)
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for index in np.flatnonzero(classes == label)[:most]:
            Image.fromarray(padded[index]).save(folder / name / f"{index:05d}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--train", type=int, default=500, help="training pictures of each class, at most 6,000")
    parser.add_argument("--test", type=int, default=200, help="test pictures of each class, at most 1,000")
    arguments = parser.parse_args()
    try:
        with new_folder(arguments.out) as partial:
            train_images, train_labels, test_images, test_labels = fetch()
            write(partial / "train", train_images, train_labels, arguments.train)
            write(partial / "test", test_images, test_labels, arguments.test)
    except UserError as error:
        sys.exit(str(error))
    print(arguments.out)


if __name__ == "__main__":
    main()
