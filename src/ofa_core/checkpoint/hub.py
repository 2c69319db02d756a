"""The Hugging Face hub, through its own client, which brings its cache, ``HF_ENDPOINT``, tokens and offline mode."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, shortened

if TYPE_CHECKING:
    from types import ModuleType

#: The beginning of a name that means a repository of the hub.
SCHEME = "hf:"
#: ``org/name``, with a file within it and a revision where they are given.
_REPOSITORY = re.compile(r"([\w.-]+/[\w.-]+)(?:/([^@]+))?(?:@(.+))?")

#: Files of settings and vocabularies that are taken where they are there.
SETTINGS = (
    *("config.json", "configuration.json", "preprocessor_config.json", "conversion.json", "SHA256SUMS"),
    *("vocab.json", "merges.txt", "vocab.txt", "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json"),
    *("encoder.json", "vocab.bpe", "dict.txt"),
)
#: Files of weights; the first that is there counts.
_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json", "pytorch_model.bin.index.json")
#: Endings of checkpoints that stand alone.
_ALONE = (".pt", ".pth", ".bin", ".safetensors", ".zip")


@dataclass(frozen=True)
class Repository:
    """A repository of the hub, and what of it is meant."""

    id: str
    #: A checkpoint within it; None for what it is as a whole.
    file: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        return f"{SCHEME}{self.id}{f'/{self.file}' if self.file else ''}{f'@{self.revision}' if self.revision else ''}"


def parse_repository(text: str) -> Repository:
    """The repository of ``org/name``, ``org/name@revision`` or ``org/name/file.pt@revision``, behind ``hf:`` or not.

    Raises:
        CheckpointError: it is none of these.
    """
    found = _REPOSITORY.fullmatch(text.removeprefix(SCHEME))
    if found is None:
        raise CheckpointError(
            f"{text!r} names no repository: {SCHEME}org/name, {SCHEME}org/name@revision or {SCHEME}org/name/file.pt"
        )
    return Repository(found[1], found[2], found[3])


def fetch(repository: Repository) -> Path:
    """The checkpoint of a repository in the hub's cache: a directory, or a file where only one stands in it.

    Only what is needed is downloaded. Without a network, or in offline mode, what the cache has is taken.

    Raises:
        CheckpointError: huggingface_hub is not installed, or the repository cannot be had or holds no weights.
    """
    client = _client()
    with _one_line(client, repository):
        names = _names(client, repository)
        if repository.file is None and names is not None:
            repository = replace(repository, file=_only_file(repository, names))
        wanted = _wanted(repository, names)
        directory = Path(
            client.snapshot_download(
                repository.id,
                revision=repository.revision,
                allow_patterns=wanted,
                local_files_only=names is None,
            )
        )
    if repository.file is None:
        repository = replace(repository, file=_only_file(repository, [path.name for path in directory.iterdir()]))
    found = directory / (repository.file or "")
    if not found.exists():
        raise CheckpointError(f"{repository} has no {repository.file}")
    return found


def _names(client: ModuleType, repository: Repository) -> list[str] | None:
    """The names of a repository's files, None without a network."""
    offline = (client.errors.OfflineModeIsEnabled, client.errors.LocalEntryNotFoundError, ConnectionError)
    try:
        return list(client.HfApi().list_repo_files(repository.id, revision=repository.revision))
    except offline:
        return None
    except Exception as error:
        if _is_of_transport(error):
            return None
        raise


def _only_file(repository: Repository, names: Iterable[str]) -> str | None:
    """The one checkpoint of a repository without a directory's files; None where it is a directory."""
    names = list(names)
    if any(name in names for name in _WEIGHTS):
        return None
    alone = sorted(name for name in names if name.endswith(_ALONE))
    if len(alone) == 1:
        return alone[0]
    if not alone:
        raise CheckpointError(f"{repository} holds no weights of OFA, such as {_WEIGHTS[0]} or {_WEIGHTS[1]}")
    listed = shortened(", ".join(alone), 200)
    raise CheckpointError(f"{repository} holds {listed}; name one: {SCHEME}{repository.id}/{alone[0]}")


def _wanted(repository: Repository, names: list[str] | None) -> list[str]:
    """Patterns of the files to download."""
    if repository.file is not None:
        return [repository.file, *("encoder.json", "vocab.bpe", "dict.txt", "vocab.txt")]
    weights = next((name for name in _WEIGHTS if names and name in names), None)
    if weights is None or weights.endswith(".index.json"):
        return [*SETTINGS, "model*.safetensors*", "pytorch_model*.bin*"]
    return [*SETTINGS, weights]


def upload(folder: Path, repository: str, *, private: bool, message: str) -> str:
    """Put the files of a folder into a repository of the hub, which is made if need be.

    Args:
        folder: the directory.
        repository: ``org/name``.
        private: whether a new repository is private.
        message: the commit's.

    Returns:
        The address of the repository.

    Raises:
        CheckpointError: huggingface_hub is not installed, or the hub refuses it.
    """
    parsed = parse_repository(repository)
    if parsed.file is not None or parsed.revision is not None:
        raise CheckpointError(f"{repository!r} should be org/name: a whole repository is written")
    client = _client()
    with _one_line(client, parsed):
        hub = client.HfApi()
        hub.create_repo(parsed.id, private=private, exist_ok=True)
        hub.upload_folder(folder_path=folder, repo_id=parsed.id, commit_message=message)
        return f"{client.constants.ENDPOINT}/{parsed.id}"


def _client() -> ModuleType:
    try:
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError:
        raise CheckpointError(
            "the Hugging Face hub needs huggingface_hub: pip install huggingface_hub (or download the files yourself "
            "and pass their directory)"
        ) from None
    return huggingface_hub


def _is_of_transport(error: Exception) -> bool:
    """Tell whether an error is of the connection, in the client's terms (httpx, or requests in older versions)."""
    return any(kind.__name__ in ("TransportError", "ConnectionError", "Timeout") for kind in type(error).__mro__)


@contextmanager
def _one_line(client: ModuleType, repository: Repository) -> Iterator[None]:
    """Say in one line why the hub does not give or take something."""
    errors: Any = client.errors
    try:
        yield
    except errors.RevisionNotFoundError:
        reason = f"there is no revision {repository.revision or 'main'!r}"
    except errors.GatedRepoError:
        reason = "it is gated: accept its terms on the hub, and log in (hf auth login, or $HF_TOKEN)"
    except errors.RepositoryNotFoundError:
        reason = "there is none, or it is private: log in (hf auth login, or $HF_TOKEN)"
    except errors.EntryNotFoundError as error:
        offline = isinstance(error, errors.LocalEntryNotFoundError)
        reason = _unreachable(client, repository) if offline else "the file is not there"
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{repository}: {shortened(str(error), 300)}") from None
    except Exception as error:
        reason = _unreachable(client, repository) if _is_of_transport(error) else shortened(str(error), 300)
    else:
        return
    raise CheckpointError(f"{repository}: {reason}")


def _unreachable(client: ModuleType, repository: Repository) -> str:
    endpoint = client.constants.ENDPOINT
    return (
        f"{endpoint}/{repository.id} cannot be reached (or offline mode is on), and it is not in the hub's cache "
        f"{client.constants.HF_HUB_CACHE}; download its files elsewhere and pass their directory"
    )
