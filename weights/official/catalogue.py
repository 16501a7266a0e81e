"""What is known about the official weights: files by address, size and MD5, VGG-19's layers by their hashes.

Facts, written in, and how a file or a network is recognised by them. Nothing is fetched here, and a file is opened only
to be hashed.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..keras.architecture import VGG19, Place
from ..model import Convolution


@dataclass(frozen=True)
class OfficialFile:
    """A file as the Keras project published it."""

    name: str
    """What `load_weights` and the command line call it."""
    model: str
    url: str
    size: int
    """Bytes."""
    md5: str

    @property
    def file_name(self) -> str:
        return self.url.rpartition("/")[2]


OFFICIAL_FILES = (
    OfficialFile(
        "vgg19",
        "VGG-19",
        "https://storage.googleapis.com/tensorflow/keras-applications/vgg19/"
        "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
        80_134_624,
        "253f8cb515780f3b799900260a226db6",
    ),
    OfficialFile(
        "vgg16",
        "VGG-16",
        "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"
        "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        58_889_256,
        "6d6bbae143d832006294945121d1f1fc",
    ),
)
LICENCE = "CC BY 4.0, Simonyan & Zisserman"
"""Of both networks' weights."""

VGG19_PLACES = tuple(Place(block, index + 1) for block, depth in enumerate(VGG19, 1) for index in range(depth))
PIECE = 4 * 1024**2
# Per convolution, from block1_conv1 to block5_conv4: its kernel's float32 bytes (HWIO), then its bias's, cut
# at `PIECE`, each piece hashed as git hashes a file.
VGG19_LAYERS = (
    ("d5dc010d2591a1bba216ecaa7b17c3c4104ca570",),
    ("5eb64d62899a8dcfc08fb9d623b8fd80bb4e8969",),
    ("debab6e087aefdec47aad792f404ee849013915a",),
    ("37158f2e74e4f124b1af755dbbda1f1c7cf901c1",),
    ("2e7e61b9cd7f8d917cc5ab8a8f7d477f8f9ecf07",),
    ("48e6fcccb9ec37e0951ace2339aa23d330aa7225",),
    ("f5d27f47b16cddda014d3a2a7c517c6ed7cf40b1",),
    ("47c01b2aee6c6f839de0abca1fed0d066a8d6883",),
    (
        "e0aeae43d3d767ec27ed3fca726c5619c058097f",
        "19881d4d23862e2459008c642e5965bc14538cd6",
    ),
    (
        "2ab453d66b452527219b6d38c1aa1f308f4dce80",
        "db5733fde7b719c484a83f60197fb3a9c584c96c",
        "0fdc25721d83da5e6d551e1ad2dc0c0670eccee2",
    ),
    (
        "ba69c69ce7e082576f0b278fcfa8cac8ff0950cf",
        "5da164af31754a7095ffaf0527f7d95e83a95b6e",
        "2fae61b1a8b300cbde5ba367bc4cebf427b46db0",
    ),
    (
        "978df76136fcc60c857888499062e3f84e8f80c3",
        "d9aaebd177091da37d02aadf1b67360a90e9aa3f",
        "9e285a2c37f0e9363135f4853599e66b4c75287b",
    ),
    (
        "24aa6625c012605b96bfe5473530eca7ba33bdcb",
        "630983138456a18e4395aa405f018e981bfb6f77",
        "11b5f2062760174dd792d78f67407d634d756283",
    ),
    (
        "0a99b7dd80761c6378f2944c267b71967b013d04",
        "9cfe0f4f8ed7877386ef70ba971d44612cea4f5b",
        "ae47f209c241d85a5710094db8e04e69ef7fb087",
    ),
    (
        "73e7f19906b1997801eadae35c9496046927c619",
        "ea38049e03d8727cf63a4cb253e654d9fad62d4b",
        "49503f7464fc8b4dfb5781f176bce9c917e6d8d2",
    ),
    (
        "b802461273065501bdc358887770e39aa5dc7719",
        "8577a524f1b1bfc65d84c6a0594758b91d8ab906",
        "70b25a2f8616e3354a7c3eccdf982832f24adcb2",
    ),
)


def official_named(name: object) -> OfficialFile | None:
    """The published file that is called `name` ("vgg19", "vgg16"), if any."""
    return next((known for known in OFFICIAL_FILES if known.name == name), None)


def official_file(size: int, md5: str) -> OfficialFile | None:
    """The published file with this size in bytes and this MD5 (hex), if any."""
    return next((known for known in OFFICIAL_FILES if (known.size, known.md5) == (size, md5)), None)


def official_layers(convolutions: Sequence[Convolution]) -> int:
    """How many of the first convolutions equal official VGG-19's bit for bit, whatever file stored them."""
    equal = 0
    for known, place, convolution in zip(VGG19_LAYERS, VGG19_PLACES, convolutions, strict=False):
        if Place(convolution.block, convolution.index) != place or _git_sha1s(convolution) != known:
            break
        equal += 1
    return equal


def has_layers_of(official: OfficialFile, convolutions: Sequence[Convolution]) -> bool:
    """Whether these are exactly the network in `official`; False for VGG-16, whose layers' hashes are not known."""
    return official.name == "vgg19" and len(convolutions) == official_layers(convolutions) == len(VGG19_LAYERS)


def md5_of(path: Path) -> str:
    """Of the whole file (hex)."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while piece := stream.read(1024**2):
            digest.update(piece)
    return digest.hexdigest()


def _git_sha1s(convolution: Convolution) -> tuple[str, ...]:
    arrays = (convolution.kernel, convolution.bias)
    content = b"".join(array.astype("<f4", copy=False).tobytes() for array in arrays)
    pieces = (content[start : start + PIECE] for start in range(0, len(content), PIECE))
    return tuple(hashlib.sha1(b"blob %d\0" % len(piece) + piece, usedforsecurity=False).hexdigest() for piece in pieces)
