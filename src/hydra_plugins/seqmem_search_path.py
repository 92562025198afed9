"""The search path of Hydra's configs: one's own folders come before those of this project."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from seqmem.cli import choices


class OwnFolders(SearchPathPlugin):
    """Adds the folder of ``--config-dir`` and those of plugins."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Put the folders before cfg/; Hydra puts that of ``--config-dir`` after it."""
        for folder in choices.own_folders:
            search_path.prepend("seqmem", f"file://{folder}", anchor="main")
