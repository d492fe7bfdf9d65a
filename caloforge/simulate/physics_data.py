"""The tables Geant4 reads: CERN's official data where it is installed, otherwise an open subset.

Geant4 asks the folders named by its ``G4*DATA`` variables for cross sections. caloforge looks for
the official ones in those variables, in ``GEANT4_DATA_DIR`` and in the binding's own folder
(``~/.geant4_pybind``). Where ``G4LEDATA`` is in none of them, `open_data` writes what
``G4EmStandardPhysics`` (option 0) needs into a cache, for the elements in use. Folders that only
hadronic physics reads are then empty.

The numbers of the open subset, each read from a package on PyPI:

- bremsstrahlung, Z = 1..92: scaled cross sections of Seltzer and Berger, At. Data Nucl. Data
  Tables 35 (1986) 345, doi:10.1016/0092-640X(86)90014-8, from the data files of ``xpecgen``
  (``data/cs``; 57 electron energies, 32 values of k/T, millibarn). xpecgen is GPL: its data files
  are located and read, its code is neither imported nor copied.
- photoelectric absorption and Rayleigh scattering: ``xraylib`` (BSD), total cross sections of
  EPDL97 (Cullen, Hubbell and Kissel, UCRL-50400 vol. 6, 1997), shares of the shells of Kissel
  (Radiat. Phys. Chem. 59 (2000) 185, doi:10.1016/S0969-806X(00)00290-5). xraylib ends near 1 MeV;
  above, the photoelectric cross section follows a/E + b/E^3 (its high-energy limit and its leading
  correction), fitted through the values at 0.6 and 1.0 of the last energy.
- Klein-Nishina, pair production, ionisation, multiple scattering, annihilation: formulas inside
  Geant4 that read no file.

File formats: the readers ``G4SeltzerBergerModel``, ``G4LivermorePhotoElectricModel`` and
``G4LivermoreRayleighModel`` of Geant4 11.4.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from caloforge.errors import RequestError
from caloforge.files import require_writable

__all__ = [
    "DATA_VARIABLES",
    "INSTALL",
    "PhysicsData",
    "activate",
    "cache_folder",
    "find_data",
    "require_packages",
    "write_elements",
]

TAG = "geant4-open-2"  # raise the number whenever a written table changes
INSTALL = "pip install 'caloforge[geant4]'"
PACKAGES = {"geant4_pybind": "geant4-pybind", "xraylib": "xraylib", "xpecgen": "xpecgen"}

# variable -> how the folder of the official data set is called before its version number
DATA_VARIABLES = {
    "G4LEDATA": "G4EMLOW",
    "G4ENSDFSTATEDATA": "G4ENSDFSTATE",
    "G4PARTICLEXSDATA": "G4PARTICLEXS",
    "G4LEVELGAMMADATA": "PhotonEvaporation",
    "G4SAIDXSDATA": "G4SAIDDATA",
    "G4NEUTRONHPDATA": "G4NDL",
    "G4RADIOACTIVEDATA": "RadioactiveDecay",
    "G4PIIDATA": "G4PII",
    "G4REALSURFACEDATA": "RealSurface",
    "G4ABLADATA": "G4ABLA",
    "G4INCLDATA": "G4INCL",
    "G4CHANNELINGDATA": "G4CHANNELING",
}
# What the hadronic lists read at their start.
HADRONIC_VARIABLES = ("G4LEDATA", "G4PARTICLEXSDATA", "G4LEVELGAMMADATA", "G4ENSDFSTATEDATA")
# One file that every official release has and the open subset never writes.
LANDMARKS = {
    "G4LEDATA": "livermore",
    "G4ENSDFSTATEDATA": "ENSDFSTATE.dat",
    "G4PARTICLEXSDATA": "neutron",
}


@dataclass(frozen=True)
class PhysicsData:
    """Where Geant4 will read.

    `folders` maps each ``G4*DATA`` variable to its folder, `official` names the variables whose
    folder holds CERN's data, `source` is the sentence kept in the provenance of the showers.
    """

    folders: dict[str, Path]
    official: frozenset[str]
    source: str

    @property
    def is_open(self) -> bool:
        """Whether the electromagnetic tables are the open subset."""
        return "G4LEDATA" not in self.official

    @property
    def missing_for_hadrons(self) -> list[str]:
        """The variables whose official data a hadronic physics list still lacks."""
        return [name for name in HADRONIC_VARIABLES if name not in self.official]


def cache_folder() -> Path:
    """Return where caloforge keeps what it can make again.

    ``CALOFORGE_CACHE``, else ``XDG_CACHE_HOME/caloforge``, else ``~/.cache/caloforge``.
    """
    own = os.environ.get("CALOFORGE_CACHE")
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "caloforge"


def require_packages(*modules: str) -> dict[str, str]:
    """Return the versions of the named modules' packages without importing them.

    Raises `RequestError` naming ``pip install 'caloforge[geant4]'`` when one is not installed.
    """
    lacking = [PACKAGES[module] for module in modules if util.find_spec(module) is None]
    if lacking:
        raise RequestError(f"Geant4 needs {', '.join(lacking)}, not installed here: {INSTALL}")
    return {PACKAGES[module]: metadata.version(PACKAGES[module]) for module in modules}


def find_data() -> PhysicsData:
    """Find the official data, and a place in the cache for what is not there.

    Nothing is written here except empty folders; see `write_elements`. Raises `RequestError` when
    ``GEANT4_DATA_DIR`` or a ``G4*DATA`` variable names no folder, when a package of the open subset
    is not installed and when the cache cannot be written.
    """
    found = {name: folder for name in DATA_VARIABLES if (folder := _official(name)) is not None}
    if len(found) == len(DATA_VARIABLES):
        return PhysicsData(found, frozenset(found), _official_source(found))
    versions = {} if "G4LEDATA" in found else require_packages("xraylib", "xpecgen")
    stamp = "-".join([TAG, *(f"{name}-{version}" for name, version in versions.items())])
    root = cache_folder() / stamp
    folders = {name: found.get(name, root / folder) for name, folder in DATA_VARIABLES.items()}
    _make_folders([folders[name] for name in folders if name not in found])
    if "G4ENSDFSTATEDATA" not in found:  # an empty list: no excited nuclei
        states = folders["G4ENSDFSTATEDATA"] / "ENSDFSTATE.dat"
        if not states.exists():
            _write_atomically(states, "")
    source = _official_source(found) if "G4LEDATA" in found else _open_source(versions)
    return PhysicsData(folders, frozenset(found), source)


def write_elements(data: PhysicsData, elements: Iterable[int]) -> int:
    """Write the open tables of the elements `elements` (atomic numbers) that are not there yet.

    Returns the number of files written; does nothing when the official tables are used. Several
    processes may do this at once: each file is written beside its place and renamed, and its
    content depends on nothing but the element. Raises `RequestError` for Z above 92 and when the
    cache cannot be written.
    """
    if not data.is_open:
        return 0
    written = 0
    for z in sorted(set(elements)):
        if not 1 <= z <= 92:
            raise RequestError(
                f"the open Geant4 tables end at Z = 92, the detector has Z = {z}; "
                "install Geant4's official data and set GEANT4_DATA_DIR"
            )
        written += _write_element(data.folders["G4LEDATA"], z)
    return written


def activate(data: PhysicsData) -> None:
    """Point this process at `data`; to be called before ``geant4_pybind`` is imported.

    ``GEANT4_DATA_DIR`` is set where it is not, because the binding otherwise asks on standard
    input, at import, whether it should download the data.
    """
    os.environ.update({name: str(folder) for name, folder in data.folders.items()})
    os.environ.setdefault("GEANT4_DATA_DIR", str(data.folders["G4LEDATA"].parent))


def _official(variable: str) -> Path | None:
    named = os.environ.get(variable)
    if named:
        return _if_official(variable, _existing(variable, named))
    for parent in _data_parents():
        for folder in sorted(parent.glob(DATA_VARIABLES[variable] + "[0-9]*"), reverse=True):
            if _if_official(variable, folder):
                return folder
    return None


def _data_parents() -> list[Path]:
    parents = [Path.home() / ".geant4_pybind"]
    named = os.environ.get("GEANT4_DATA_DIR")
    if named:
        parents.insert(0, _existing("GEANT4_DATA_DIR", named))
    return parents


def _existing(variable: str, named: str) -> Path:
    if not Path(named).is_dir():
        raise RequestError(f"{variable} is '{named}', no folder: correct or unset it")
    return Path(named)


def _if_official(variable: str, folder: Path) -> Path | None:
    landmark = folder / LANDMARKS.get(variable, "")
    if not landmark.exists() or (landmark.is_file() and landmark.stat().st_size == 0):
        return None
    return folder if folder.is_dir() and any(folder.iterdir()) else None


def _official_source(found: dict[str, Path]) -> str:
    return f"official Geant4 data ({', '.join(sorted(path.name for path in found.values()))})"


def _open_source(versions: dict[str, str]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"open electromagnetic tables {TAG} ({packages})"


def _make_folders(folders: Iterable[Path]) -> None:
    root = cache_folder()
    try:
        require_writable(root)
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RequestError) as error:
        raise RequestError(
            f"cannot write the physics tables in '{root}' ({error}); set CALOFORGE_CACHE"
        ) from None


def _write_element(folder: Path, z: int) -> int:
    marker = folder / f".complete-{z}"
    if marker.exists():
        return 0
    folder_of_tables = _bremsstrahlung_folder()
    from caloforge.simulate.tables import element_files

    files = element_files(z, folder_of_tables)
    for name, text in files.items():
        _write_atomically(folder / name, text)
    _write_atomically(marker, "")
    return len(files)


def _bremsstrahlung_folder() -> Path:
    require_packages("xraylib", "xpecgen")
    spec = util.find_spec("xpecgen")  # finding a top-level module does not run it
    if spec is None or not spec.submodule_search_locations:
        raise RequestError(f"xpecgen's data files are not where expected: {INSTALL}")
    return Path(next(iter(spec.submodule_search_locations))) / "data" / "cs"


def _write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="ascii")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RequestError(
            f"cannot write '{path}' ({error.strerror}); set CALOFORGE_CACHE to another folder"
        ) from None
